"""The samples of one tar as img2dataset writes it: an image, a text and perhaps a JSON by one name.

A name's last dot starts its extension: `a.b.jpg` and `a.b.txt` are the sample `a.b`. What is no
whole sample by that is taken as webdataset does, for which the first dot ends a sample's name:
`a.img.jpg` and `a.txt` are the sample `a`; beside `a.jpg` and `a.txt`, `a.mask.png` is a further
part of it, which is not used.

Members are looked at in one pass, front to back, and nothing is extracted. What is not a usable
sample is named with its reason, and other members are counted. Images are known by their first
bytes or, where digests are asked for, by their headers; whether the rest can be decoded shows when
they are drawn.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import polars as pl

from fomo_dagster.data.decoding import DEFAULT, Decoding
from fomo_dagster.data.formats import FIRST_BYTES, begins_an_image
from fomo_dagster.data.images import Seen, UnreadableImageError, glimpsed
from fomo_dagster.data.sources.files import LARGEST_IMAGE
from fomo_dagster.data.tar_headers import headers, undone_by
from fomo_dagster.store.digests import digest_of_bytes
from fomo_dagster.texts import as_text, composed, is_text, read_json

RULES = 3  # raised when the same tar brings other samples
PLACED: dict[str, pl.DataType] = {
    "key": pl.String(),
    "captions": pl.List(pl.String()),
    "digest": pl.String(),  # of the picture (`Seen.digest`); empty if it was not read
    "offset": pl.Int64(),
    "size": pl.Int64(),
}
BROKEN: dict[str, pl.DataType] = {
    "key": pl.String(),
    "digest": pl.String(),
    "samples": pl.Int64(),  # that it stands for; null: all that the rest of the tar held
    "reason": pl.String(),
}
ODD: dict[str, pl.DataType] = {
    "offset": pl.Int64(),
    "source": pl.String(),  # the digest of the image's bytes
    **dict.fromkeys(Seen._fields, pl.Boolean()),
}
TEXT, ABOUT = "txt", "json"
IMG2DATASET = frozenset(  # what it writes into a JSON of its own accord
    {
        "caption", "url", "key", "status", "error_message", "width", "height", "original_width",
        "original_height", "exif", "md5", "sha256", "sha512",
    }
)  # fmt: skip
FIELDS_NAMED = 20  # of JSONs, in one tar
LARGEST_TEXT = 1 << 20  # bytes; a text member beyond this is no caption
BEGINNING = 24  # bytes, that tell a page of an error, a pointer of Git LFS or a zip from a tar
LITTER = ("thumbs.db", "desktop.ini")  # in lower case: what systems leave behind


class Unused(NamedTuple):
    """Members that are part of no sample, and fields of JSONs, that one reason leaves out."""

    reason: str
    members: int
    example: str


class TarScan(NamedTuple):
    """What is in a tar, in its order: the usable samples (PLACED), what is broken (BROKEN), which
    usable images are odd (ODD), and what is not used."""

    samples: pl.DataFrame
    broken: pl.DataFrame
    odd: pl.DataFrame
    unused: tuple[Unused, ...] = ()

    def reasons(self) -> list[str]:
        """Why not all that is in the tar can be used, the most frequent first."""
        of_broken = self.broken.group_by("reason", maintain_order=True).len("count")
        said = [*of_broken.rows(), *((f"{u.reason} ({u.example})", u.members) for u in self.unused)]
        return [f"{count} × {reason}" for reason, count in sorted(said, key=lambda row: -row[1])]


class _Member(NamedTuple):
    name: str
    offset: int
    size: int
    problem: str | None = None
    digest: str = ""
    text: bytes = b""
    seen: Seen = Seen()
    samples: int = 1  # that are lost with it


Parts = dict[str, _Member]  # by extension


def scan_tar(
    path: Path, images: Sequence[str], *, digests: bool, decoding: Decoding = DEFAULT
) -> TarScan:
    """Look through the tar at `path` for images with one of the extensions `images`.

    digests: read every image whole, take its digest, and see what is odd of it. A tar that ends
    early gives what comes before. Raises `OSError` if the file cannot be read.
    """
    samples: dict[str, Parts] = {}
    unused: dict[str, Unused] = {}
    broken: list[tuple[str, str, int | None, str]] = []
    with path.open("rb") as file:
        try:
            for stem, extension, member in _members(file, images, unused, digests=digests):
                parts = samples.setdefault(stem, {})
                if extension in parts:
                    count = parts[extension].samples + 1
                    said = f"{'two' if count == 2 else count} members are called {member.name}"
                    member = member._replace(problem=said, samples=count)
                parts[extension] = member
        except tarfile.TarError as error:
            tool = undone_by(path)
            said = f"damaged or ends early: {error}" if tool is None else f"compressed: `{tool}` it"
            file.seek(0)
            if tool is None and not samples and (start := file.read(BEGINNING)):
                said += f"; it begins with {start!r}"
            broken.append(("", "", None, f"the tar is {said}"))
    placed: list[tuple[object, ...]] = []
    odd: list[tuple[object, ...]] = []
    for stem, parts in _regrouped(samples, images, unused):
        image, about = _image(parts, images), _about(parts)
        found = _sample(stem, parts, image, about)
        for extension, part in parts.items():
            if extension in images and part is not image:
                _count(unused, "further images of samples", part.name)
        for reason in _unread(parts, about):
            if reason in unused or len(unused) < FIELDS_NAMED:
                _count(unused, reason, parts[ABOUT].name)
        if isinstance(found, str):
            lost, digest = (1, "") if image is None else (image.samples, image.digest)
            broken.append((stem, digest, lost, found))
            continue
        assert image is not None
        digest = image.seen.digest(image.digest, decoding) if digests else ""
        placed.append((stem, *found, digest, image.offset, image.size))
        if any(image.seen):
            odd.append((image.offset, image.digest, *image.seen))
    return TarScan(
        _told_apart(pl.DataFrame(placed, schema={"stem": pl.String(), **PLACED}, orient="row")),
        pl.DataFrame(broken, schema=BROKEN, orient="row"),
        pl.DataFrame(odd, schema=ODD, orient="row"),
        tuple(sorted(unused.values(), key=lambda several: -several.members)),
    )


def _told_apart(placed: pl.DataFrame) -> pl.DataFrame:
    """PLACED; where keys of the JSONs repeat, all of the tar go by the names of their members."""
    if placed["key"].is_duplicated().any():
        placed = placed.with_columns(key="stem")
    return placed.select(*PLACED)


def _members(
    file: IO[bytes], images: Sequence[str], unused: dict[str, Unused], *, digests: bool
) -> Iterator[tuple[str, str, _Member]]:
    """Stem, extension and content of each member that could be part of a sample."""
    length = os.fstat(file.fileno()).st_size
    for header in headers(file, ends_in_mark=True):
        name = composed(as_text(header.name.removeprefix("./")))
        folder, slash, base = name.rpartition("/")
        if header.isdir() or base.lower() in LITTER or base.startswith("._"):
            continue
        stem, dot, extension = base.rpartition(".")
        extension = extension.lower()
        whole = next((e for e in images if "." in e and base.lower().endswith(f".{e}")), None)
        if whole is not None:
            stem, extension = base[: -len(whole) - 1], whole
        if any(part.startswith(".") and part.strip(".") for part in name.split("/")):
            _count(unused, "hidden", name)
        elif stem and (extension in images or extension in (TEXT, ABOUT)):
            member = _Member(name, header.offset_data, header.size)
            read = _read(file.fileno(), header, member, extension, length, digests=digests)
            yield folder + slash + stem, extension, read
        else:
            _count(unused, f".{extension}" if dot else "no extension", name)


def _read(
    descriptor: int,
    header: tarfile.TarInfo,
    member: _Member,
    extension: str,
    length: int,
    *,
    digests: bool,
) -> _Member:
    """`member` with its content, or the problem with it; no more is read than it may have."""
    is_text = extension in (TEXT, ABOUT)
    largest = LARGEST_TEXT if is_text else LARGEST_IMAGE
    if not header.isreg() or header.issparse():
        return member._replace(problem=f"{member.name} is not a plain file")
    if header.offset_data + header.size > length:
        return member._replace(problem="the tar ends within it")
    if header.size > largest:
        kind = f"its {extension}" if is_text else "its image"
        return member._replace(problem=f"{kind} has {header.size:,} bytes, more than {largest:,}")
    wanted = header.size if is_text or digests else min(header.size, FIRST_BYTES)
    data = os.pread(descriptor, wanted, header.offset_data)
    if is_text:
        return member._replace(text=data)
    if not header.size or not begins_an_image(data[:FIRST_BYTES], extension.rpartition(".")[2]):
        problem = "its image is of no known format"
        return member._replace(problem=problem, digest=digest_of_bytes(data) if digests else "")
    if not digests:
        return member
    member = member._replace(digest=digest_of_bytes(data))
    try:
        return member._replace(seen=glimpsed(data))
    except UnreadableImageError as error:
        return member._replace(problem=f"its image cannot be read: {error}")


def _count(unused: dict[str, Unused], reason: str, name: str) -> None:
    so_far = unused.get(reason, Unused(reason, 0, name))
    unused[reason] = so_far._replace(members=so_far.members + 1)


def _regrouped(
    samples: dict[str, Parts], images: Sequence[str], unused: dict[str, Unused]
) -> Iterator[tuple[str, Parts]]:
    """Name and parts of each sample, those that are not whole as webdataset groups them."""
    groups: dict[str, list[str]] = {}
    for stem in samples:
        folder, slash, name = stem.rpartition("/")
        groups.setdefault(folder + slash + name.partition(".")[0], []).append(stem)
    for group, stems in groups.items():
        whole = [stem for stem in stems if _is_whole(samples[stem], images)]
        rest = [stem for stem in stems if stem not in whole]
        yield from ((stem, samples[stem]) for stem in whole)
        if group in whole:
            for member in (member for stem in rest for member in samples[stem].values()):
                _count(unused, "further parts of samples", member.name)
        elif whole or len(rest) == 1:
            yield from ((stem, samples[stem]) for stem in rest)
        elif rest:
            yield group, _merged(group, {stem: samples[stem] for stem in rest}, images, unused)


def _merged(
    group: str, several: dict[str, Parts], images: Sequence[str], unused: dict[str, Unused]
) -> Parts:
    """The parts of the sample `group`: its own, and of others those of which there is one."""
    merged = several.pop(group, {})
    for is_role in (lambda e: e in images, lambda e: e == TEXT, lambda e: e == ABOUT):
        found = [item for parts in several.values() for item in parts.items() if is_role(item[0])]
        if any(is_role(extension) for extension in merged):
            for _, member in found:
                _count(unused, "further parts of samples", member.name)
            continue
        if not found:
            continue
        extension, member = found[0]
        if len(found) > 1:
            names = " and ".join(member.name for _, member in found[:2])
            member = member._replace(
                problem=f"{names} could be its part, {len(found)} members in all",
                samples=len(found),
            )
        merged[extension] = member
    return merged


def _is_whole(parts: Parts, images: Sequence[str]) -> bool:
    return _image(parts, images) is not None and not parts.keys().isdisjoint((TEXT, ABOUT))


def _image(parts: Parts, images: Sequence[str]) -> _Member | None:
    return next((parts[name] for name in images if name in parts), None)


def _sample(
    stem: str, parts: Parts, image: _Member | None, about: Mapping[str, object] | None
) -> tuple[str, list[str]] | str:
    """Key and captions, or the reason why there are none."""
    if image is None:
        return "it has no image"
    if TEXT not in parts and about is None:
        return "its JSON cannot be read, and it has no other text"
    about = about or {}
    if TEXT not in parts and "caption" not in about:
        return "it has no text"
    for member in (image, parts.get(TEXT)):
        if member is not None and member.problem is not None:
            return member.problem
    if TEXT in parts:
        try:
            captions = [parts[TEXT].text.decode("utf-8-sig").strip()]
        except UnicodeDecodeError:
            return "its text is not UTF-8"
    else:
        captions = [text.strip() for text in _texts(about["caption"])]
    captions = [composed(text) for text in captions if text]
    if not captions:
        return "its text is empty"
    if not all(map(is_text, captions)):
        return "its text has half a character (a lone surrogate)"
    key = about.get("key")
    return composed(as_text(key)) if isinstance(key, str) and key.strip() else stem, captions


def _unread(parts: Parts, about: Mapping[str, object] | None) -> Iterator[str]:
    """What of a JSON is not read: texts beside those that img2dataset writes, and a caption that is
    not that of the text."""
    if about is None:
        if TEXT in parts:
            yield "a JSON that cannot be read"
        return
    for field, value in about.items():
        if field not in IMG2DATASET and any(text.strip() for text in _texts(value)):
            yield f"the field {as_text(field)!r} of a JSON"
    if TEXT in parts and (given := [text.strip() for text in _texts(about.get("caption"))]):
        text = parts[TEXT].text.decode("utf-8-sig", errors="replace").strip()
        if given != [text]:
            yield "the caption of a JSON that is not the text's, which counts"


def _texts(value: object) -> list[str]:
    listed = value if isinstance(value, list) else [value]
    return [text for text in listed if isinstance(text, str)]


def _about(parts: Parts) -> Mapping[str, object] | None:
    """What the JSON says, nothing without one; None if it cannot be read."""
    if ABOUT not in parts:
        return {}
    try:
        about = read_json(parts[ABOUT].text)
    except ValueError:
        return None
    return about if isinstance(about, dict) else None
