"""The samples of one tar as img2dataset writes it: an image, a text and perhaps a JSON by one name.

Members are looked at in one pass, front to back, and nothing is extracted. What is not a usable
sample is named with its reason. Images are known by their first bytes here; whether the rest can be
decoded shows when they are drawn.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import polars as pl

from fomo_dagster.store.digests import digest_of_bytes

RULES = 1  # raised when the same tar brings other samples
PLACED: dict[str, pl.DataType] = {
    "key": pl.String(),
    "captions": pl.List(pl.String()),
    "digest": pl.String(),  # of the image's bytes; empty where they were not read
    "offset": pl.Int64(),
    "size": pl.Int64(),
}
BROKEN: dict[str, pl.DataType] = {
    "key": pl.String(),
    "digest": pl.String(),
    "reason": pl.String(),
}
TEXT, ABOUT = "txt", "json"
# As webdataset groups members: a name's first dot, after its last slash, starts the extension.
NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
HEADER_BYTES = 16
LARGEST_TEXT = 1 << 20  # bytes; a text member beyond this is no caption


class TarScan(NamedTuple):
    """The usable samples of a tar (PLACED) and what else is in it (BROKEN), in the tar's order."""

    samples: pl.DataFrame
    broken: pl.DataFrame


class _Member(NamedTuple):
    offset: int
    size: int
    problem: str | None = None
    digest: str = ""
    text: bytes = b""


def scan_tar(path: Path, images: Sequence[str], *, digests: bool) -> TarScan:
    """Look through the tar at `path` for images with one of the extensions `images`.

    digests: read every image whole and take its digest. A tar that ends early gives what comes
    before. Raises `OSError` where the file cannot be read.
    """
    parts: dict[str, dict[str, _Member]] = {}
    broken: list[tuple[str, str, str]] = []
    with path.open("rb") as file:
        try:
            for stem, extension, member in _members(file, images, digests=digests):
                sample = parts.setdefault(stem, {})
                if extension in sample:
                    member = member._replace(problem=f"two members are called {stem}.{extension}")
                sample[extension] = member
        except tarfile.TarError as error:
            broken.append(("", "", f"the tar is damaged or ends early: {error}"))
    samples = []
    for stem, sample in parts.items():
        found = _sample(stem, sample, images)
        if isinstance(found, str):
            image = _image(sample, images)
            broken.append((stem, image.digest if image else "", found))
        else:
            samples.append(found)
    return TarScan(
        pl.DataFrame(samples, schema=PLACED, orient="row"),
        pl.DataFrame(broken, schema=BROKEN, orient="row"),
    )


def _members(
    file: IO[bytes], images: Sequence[str], *, digests: bool
) -> Iterator[tuple[str, str, _Member]]:
    """Name, extension and content of each member that could be part of a sample."""
    descriptor = file.fileno()
    length = os.fstat(descriptor).st_size
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (header := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # else it keeps all that it saw
            name = NAME.match(header.name.removeprefix("./"))
            if name is None or header.isdir():
                continue
            stem, extension = name[1], name[2].lower()
            is_image = extension in images
            if not is_image and extension not in (TEXT, ABOUT):
                continue
            member = _Member(header.offset_data, header.size)
            if not header.isreg() or header.issparse():
                member = member._replace(problem=f"{header.name} is not a plain file")
            elif header.offset_data + header.size > length:
                member = member._replace(problem="the tar ends within it")
            elif is_image:
                data = os.pread(
                    descriptor, header.size if digests else HEADER_BYTES, header.offset_data
                )
                known = header.size > 0 and _looks_like_an_image(data[:HEADER_BYTES])
                member = member._replace(
                    problem=None if known else "its image is of no known format",
                    digest=digest_of_bytes(data) if digests else "",
                )
            elif header.size > LARGEST_TEXT:
                member = member._replace(problem=f"its {extension} has {header.size} bytes")
            else:
                member = member._replace(text=os.pread(descriptor, header.size, header.offset_data))
            yield stem, extension, member
        # What is no header, tarfile takes for the end; a whole tar ends in zeros.
        if os.pread(descriptor, tarfile.BLOCKSIZE, tar.offset).strip(b"\0"):
            raise tarfile.ReadError(f"no header at byte {tar.offset}")
        if tar.offset >= length:
            raise tarfile.ReadError(f"no end mark at byte {tar.offset}")


def _looks_like_an_image(start: bytes) -> bool:
    """By the first bytes of JPEG, PNG and WebP, the formats that img2dataset writes."""
    return start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or (
        start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    )


def _image(sample: dict[str, _Member], images: Sequence[str]) -> _Member | None:
    return next((sample[name] for name in images if name in sample), None)


def _sample(
    stem: str, sample: dict[str, _Member], images: Sequence[str]
) -> tuple[str, list[str], str, int, int] | str:
    """A row of PLACED, or the reason why there is none."""
    image = _image(sample, images)
    if image is None:
        return "it has no image"
    about = _about(sample)
    if TEXT not in sample and "caption" not in about:
        return "it has no text"
    for member in (image, sample.get(TEXT)):
        if member is not None and member.problem is not None:
            return member.problem
    if TEXT in sample:
        try:
            captions = [sample[TEXT].text.decode().strip()]
        except UnicodeDecodeError:
            return "its text is not UTF-8"
    else:
        given = about["caption"]
        listed = given if isinstance(given, list) else [given]
        captions = [text.strip() for text in listed if isinstance(text, str)]
    captions = [text for text in captions if text]
    if not captions:
        return "its text is empty"
    key = about.get("key")
    return (
        key if isinstance(key, str) and key.strip() else stem,
        captions,
        image.digest,
        image.offset,
        image.size,
    )


def _about(sample: dict[str, _Member]) -> dict[str, object]:
    """What the JSON says; nothing where there is none that can be read."""
    if ABOUT not in sample:
        return {}
    try:
        about = json.loads(sample[ABOUT].text)
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}
