"""Which tars a declaration means, and what tells one version of a tar from another.

Folders, globs, brace ranges and lists, on the local disk or any filesystem that fsspec reaches.
Only folder listings and the status of files are read.
"""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import braceexpand
import fsspec
from fsspec.implementations.local import LocalFileSystem

from fomo_dagster.data.sources.files import shortlist
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.store.digests import digest_of
from fomo_dagster.texts import is_text

REQUESTS_AT_ONCE = 16
MOST_SHARDS = 1_000_000  # that one pattern may name; the largest public sets have a quarter of it
# What stores tell of a file's content, in order of trust; after these, when it was last written.
CHECKSUMS = ("ETag", "etag", "md5Hash", "content_md5", "crc32c", "checksum", "CRC")
TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")
_ARCHIVE = re.compile(r"\.(tar(\.\w+)?|tgz|tbz2?|txz|tzst|zip|7z|rar)$", re.IGNORECASE)
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.(-?\d{1,18}))?")

logger = logging.getLogger(__name__)


class ShardFile(NamedTuple):
    """A tar where it lies now."""

    name: str
    """Its path below the folder that all shards have in common: no identity of places."""
    url: str
    """What `fsspec.url_to_fs` takes."""
    size: int | None
    """In bytes; None if the store does not say."""
    version: str
    """A checksum of the store's, or the time of the last change; empty if it tells neither."""


class _Wanted(NamedTuple):
    """What a declaration names. written: as a person wrote it, from `folder` on, which is no
    pattern whatever its name; None: of a store, where all of the path was written."""

    path: str
    written: str
    folder: str | None = None

    @property
    def is_glob(self) -> bool:
        return any(letter in self.written for letter in "*?[")


class Shards(NamedTuple):
    """What a declaration means. missing: URLs of a brace range that are not there."""

    files: list[ShardFile]
    missing: list[str]


def is_local(pattern: str) -> bool:
    """Whether `pattern` is a path on this machine."""
    return "://" not in pattern and "::" not in pattern


def list_shards(patterns: Sequence[str], base: Path) -> list[ShardFile]:
    """The tars that `patterns` name; see `find_shards`."""
    return find_shards(patterns, base).files


def find_shards(patterns: Sequence[str], base: Path) -> Shards:
    """The tars that `patterns` name, sorted by name; relative paths start from `base`.

    Of a brace range, numbers that are not there are left out and said. Raises `InputError` if a
    store cannot be opened, and `DataError` where nothing is found, a tar is missing or comes twice.
    """
    found: dict[str, Mapping[str, Any]] = {}
    missing: list[str] = []
    for pattern in patterns:
        found.update(_found(pattern, base, missing))
    spoiled = [url for url in found if not is_text(url)]
    if spoiled:
        raise DataError(
            f"{len(spoiled)} shards have names that are not UTF-8: {shortlist(spoiled)}; rename "
            "them"
        )
    paths = {url: PurePosixPath(str(info["name"])) for url, info in found.items()}
    common = os.path.commonpath([str(path.parent) for path in paths.values()])
    files = [
        ShardFile(
            name=path.relative_to(common).as_posix(),
            url=url,
            size=None if found[url].get("size") is None else int(found[url]["size"]),
            version=_version(found[url]),
        )
        for url, path in paths.items()
    ]
    return Shards(sorted(files), missing)


def said_of_others(patterns: Sequence[str], base: Path) -> Iterator[str]:
    """A sentence for each folder of this machine that `patterns` name, if it holds other archives
    than the tars that are read, or folders of tars."""
    for folder in _folders_of(patterns, base):
        others = [name for name in os.listdir(folder) if _is_archive(name)]
        below = glob.glob("*/*.tar", root_dir=folder)
        if others or below:
            named = shortlist(sorted([*others, *below]))
            yield (
                f"the folder {folder} holds archives that are not read: {named}; only its files "
                "named *.tar are: rename or unpack these, or list their folder in `shards`, too"
            )


def _folders_of(patterns: Sequence[str], base: Path) -> Iterator[str]:
    for pattern in filter(is_local, patterns):
        _, wanted = _wanted(pattern, base)
        if len(wanted) == 1 and not wanted[0].is_glob and os.path.isdir(wanted[0].path):
            yield wanted[0].path


def _is_archive(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(".tar") and bool(_ARCHIVE.search(name))


def listing_digest(files: Sequence[ShardFile]) -> str:
    """The identity of shards whose content nobody has looked at: names, sizes and versions."""
    return digest_of([[file.name, file.size, file.version] for file in files])


def _found(pattern: str, base: Path, lost: list[str]) -> dict[str, Mapping[str, Any]]:
    """URL → fsspec's information of the tars that one pattern means; those that are missing are
    added to `lost`."""
    try:
        filesystem, wanted = _wanted(pattern, base)
    except (ValueError, ImportError, OSError) as error:
        raise InputError(f"the shards {pattern!r} cannot be opened: {error}") from error
    try:
        found = dict(_matches(filesystem, wanted))
    except (OSError, ValueError) as error:
        raise DataError(f"the shards {pattern!r} cannot be listed: {error}") from error
    infos = [info for several in found.values() for info in several]
    missing = [one.path for one in wanted if one.path not in found and not one.is_glob]
    if not infos or (missing and len(wanted) == 1):
        raise DataError(
            f"there are no shards {pattern!r}: nothing at "
            f"{shortlist(missing or [one.path for one in wanted])}"
            + (_compressed(filesystem, wanted) or _start(pattern, base))
        )
    if missing:
        lost += missing
        logger.warning(
            "%d shards of %r are not there: %s", len(missing), pattern, shortlist(missing)
        )
    if isinstance(filesystem, LocalFileSystem):
        return {str(info["name"]): info for info in infos}
    chain = "".join(pattern.partition("::")[1:])
    return {filesystem.unstrip_protocol(str(info["name"])) + chain: info for info in infos}


def _wanted(pattern: str, base: Path) -> tuple[Any, list[_Wanted]]:
    """The filesystem of a pattern, and what its braces come to.

    Only what a person wrote is a pattern: `base` and the home folder may have any name.
    """
    if _most_of(pattern) > MOST_SHARDS:
        raise InputError(
            f"the shards {pattern!r} are more than {MOST_SHARDS:,}: correct the range, or name "
            "their folder"
        )
    urls = list(braceexpand.braceexpand(pattern))
    if not is_local(pattern):
        filesystem, _ = fsspec.url_to_fs(pattern)
        paths = [str(fsspec.url_to_fs(url)[1]) for url in urls]
        return filesystem, [_Wanted(path, path) for path in paths]
    wanted = []
    for url in urls:
        user, _, rest = url.partition("/")
        folder, written = (Path(user).expanduser(), rest) if user[:1] == "~" else (base, url)
        wanted.append(_Wanted(os.path.abspath(folder / written), written, str(folder)))
    return LocalFileSystem(), wanted


def _most_of(pattern: str) -> int:
    """How many names a pattern's braces come to at most; all are expanded at once."""
    count = 1
    for inner in _BRACES.findall(pattern):
        found = _RANGE.fullmatch(inner)
        if found is None:
            count *= inner.count(",") + 1
        else:
            first, last, step = int(found[1]), int(found[2]), abs(int(found[3] or 1)) or 1
            count *= abs(last - first) // step + 1
    return count


def _matches(filesystem: Any, wanted: Sequence[_Wanted]) -> Iterator[tuple[str, list[Any]]]:
    """(path, what it means) of those that mean anything."""
    single = []
    for one in wanted:
        if one.is_glob:
            yield one.path, _globbed(filesystem, one)
        elif len(wanted) == 1 and filesystem.isdir(one.path):
            folder = one.path.rstrip("/")
            within = None if one.folder is None else folder
            tars = _Wanted(folder, "*.tar" if within else f"{folder}/*.tar", within)
            yield one.path, _globbed(filesystem, tars)
        else:
            single.append(one.path)
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as threads:
        infos = threads.map(lambda path: _info(filesystem, path), single)
        for path, info in zip(single, infos, strict=True):
            if info is not None:
                yield path, [info]


def _globbed(filesystem: Any, one: _Wanted) -> list[Any]:
    if one.folder is None:
        return list(filesystem.glob(one.written, detail=True).values())
    found = glob.glob(one.written, root_dir=one.folder, recursive=True, include_hidden=True)
    return [filesystem.info(os.path.abspath(os.path.join(one.folder, name))) for name in found]


def _compressed(filesystem: Any, wanted: Sequence[_Wanted]) -> str:
    """A clause about compressed tars where a folder has those alone."""
    if len(wanted) != 1 or wanted[0].is_glob or not filesystem.isdir(wanted[0].path):
        return ""
    names = [PurePosixPath(path).name for path in filesystem.ls(wanted[0].path, detail=False)]
    packed = sorted(filter(_is_archive, names))
    if not packed:
        return ""
    return f"; it holds {shortlist(packed)}, and images are read from uncompressed tars alone"


def _start(pattern: str, base: Path) -> str:
    """A clause about what a relative path starts from."""
    if not is_local(pattern) or pattern.startswith(("/", "~")):
        return ""
    return f"; relative paths start from {base}, the folder of the file that declares them"


def _info(filesystem: Any, path: str) -> Any:
    try:
        return filesystem.info(path)
    except FileNotFoundError:
        return None


def _version(info: Mapping[str, Any]) -> str:
    for name in (*CHECKSUMS, *TIMES):
        if info.get(name) is not None:
            return f"{name}={info[name]}"
    return ""
