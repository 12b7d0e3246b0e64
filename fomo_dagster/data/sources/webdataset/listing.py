"""Which tars a declaration means, and what tells one version of a tar from another.

Folders, globs, brace ranges and lists, on the local disk or any filesystem that fsspec reaches.
Nothing is read but folder listings and the status of files.
"""

from __future__ import annotations

import logging
import os
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
# What stores tell of a file's content, in order of trust; after these, when it was last written.
CHECKSUMS = ("ETag", "etag", "md5Hash", "content_md5", "crc32c", "checksum", "CRC")
TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")

logger = logging.getLogger(__name__)


class ShardFile(NamedTuple):
    """A tar where it lies now."""

    name: str
    """Its path below the folder that all shards have in common: no identity of places."""
    url: str
    """What `fsspec.url_to_fs` takes."""
    size: int | None
    """In bytes; None where the store does not say."""
    version: str
    """A checksum of the store's, or the time of the last change; empty where it tells neither."""


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

    Of a brace range, numbers that are not there are left out and said. Raises `InputError` where a
    store cannot be opened, and `DataError` where nothing is found, a tar is missing or comes twice.
    """
    found: dict[str, Mapping[str, Any]] = {}
    missing: list[str] = []
    for pattern in patterns:
        located = str(base / Path(pattern).expanduser()) if is_local(pattern) else pattern
        found.update(_found(pattern, located, missing))
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


def listing_digest(files: Sequence[ShardFile]) -> str:
    """The identity of shards whose content nobody has looked at: names, sizes and versions."""
    return digest_of([[file.name, file.size, file.version] for file in files])


def _found(pattern: str, located: str, lost: list[str]) -> dict[str, Mapping[str, Any]]:
    """URL → fsspec's information of the tars that one pattern means; those that are missing are
    added to `lost`."""
    try:
        filesystem, _ = fsspec.url_to_fs(located)
    except (ValueError, ImportError, OSError) as error:
        raise InputError(f"the shards {pattern!r} cannot be opened: {error}") from error
    chain = "".join(located.partition("::")[1:])
    wanted = [fsspec.url_to_fs(url)[1] for url in braceexpand.braceexpand(located)]
    try:
        found = dict(_matches(filesystem, wanted))
    except OSError as error:
        raise DataError(f"the shards {pattern!r} cannot be listed: {error}") from error
    infos = [info for several in found.values() for info in several]
    missing = [path for path in wanted if path not in found and not _is_glob(path)]
    if not infos or (missing and len(wanted) == 1):
        raise DataError(
            f"there are no shards {pattern!r}: {shortlist(missing or wanted)}"
            + _compressed(filesystem, wanted)
        )
    if missing:
        lost += missing
        logger.warning(
            "%d shards of %r are not there: %s", len(missing), pattern, shortlist(missing)
        )
    if isinstance(filesystem, LocalFileSystem):
        return {str(info["name"]): info for info in infos}
    return {filesystem.unstrip_protocol(str(info["name"])) + chain: info for info in infos}


def _matches(filesystem: Any, wanted: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    """(path or pattern, what it means) of those that mean anything."""
    single = []
    for path in wanted:
        if _is_glob(path):
            yield path, list(filesystem.glob(path, detail=True).values())
        elif len(wanted) == 1 and filesystem.isdir(path):
            tars = filesystem.glob(path.rstrip("/") + "/*.tar", detail=True)
            yield path, list(tars.values())
        else:
            single.append(path)
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as threads:
        infos = threads.map(lambda path: _info(filesystem, path), single)
        for path, info in zip(single, infos, strict=True):
            if info is not None:
                yield path, [info]


def _compressed(filesystem: Any, wanted: Sequence[str]) -> str:
    """A clause about compressed tars where a folder has those alone."""
    if len(wanted) != 1 or _is_glob(wanted[0]) or not filesystem.isdir(wanted[0]):
        return ""
    names = [PurePosixPath(path).name for path in filesystem.ls(wanted[0], detail=False)]
    packed = sorted(name for name in names if ".tar." in name or name.endswith((".tgz", ".tbz2")))
    if not packed:
        return ""
    return f"; it holds {shortlist(packed)}, and images are read from uncompressed tars alone"


def _info(filesystem: Any, path: str) -> Any:
    try:
        return filesystem.info(path)
    except FileNotFoundError:
        return None


def _is_glob(path: str) -> bool:
    return any(letter in path for letter in "*?[")


def _version(info: Mapping[str, Any]) -> str:
    for name in (*CHECKSUMS, *TIMES):
        if info.get(name) is not None:
            return f"{name}={info[name]}"
    return ""
