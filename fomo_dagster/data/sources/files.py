"""Image files: which exist, their digests without reading them twice, and safe reading.

A file's digest is kept by its path, size, times and inode, so scanning an unchanged folder only
looks at its files' status. Image content is not looked at here: `data/images.py` decodes.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import polars as pl

from fomo_dagster.data.images import UnreadableImageError
from fomo_dagster.errors import DataError, StoreError
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.digests import digest_of, digest_of_bytes, digest_of_file
from fomo_dagster.store.files import replacing, skipped_where_refused
from fomo_dagster.texts import composed

LARGEST_IMAGE = 1 << 29  # bytes of an encoded image; a larger one is never read

SEPARATED = "; the parts of a path are separated by / here, not by a backslash"

LINK_TO_NOTHING = digest_of({"link": None})

STATUS: dict[str, pl.DataType] = {
    "path": pl.String(),
    "size": pl.Int64(),
    "modified_ns": pl.Int64(),
    "changed_ns": pl.Int64(),
    "inode": pl.UInt64(),
}
FILES_PER_TASK = 64

Value = TypeVar("Value")


def shortlist(names: Sequence[str], most: int = 5) -> str:
    """Up to so many names for an error message, and the number of the others."""
    rest = len(names) - most
    listed = ", ".join(repr(name) for name in names[:most])
    return listed + (f" and {rest} more" if rest > 0 else "")


class DigestCache:
    """Digests of files, kept in a Parquet file between scans.

    `settle_seconds`: a file that changed less than this before it was looked at is read again
    next time, since a second change within the file system's clock tick would leave no trace. The
    default is the coarsest tick in use (FAT's).
    """

    def __init__(self, path: Path, settle_seconds: float = 2.0) -> None:
        self.path = path
        self.settle_seconds = settle_seconds

    @classmethod
    def of_dataset(cls, folder: Path, name: str, origin: object) -> DigestCache:
        """That of the dataset `name`, in `folder`; another origin has another one."""
        return cls(folder / f"{name}-{digest_of(str(origin))[:8]}.parquet")

    def digests(self, files: Sequence[str], named_by: str, largest: int | None = None) -> list[str]:
        """The digest of each file's bytes, in order; of a file of more than `largest`, of its size;
        of a link to nothing, `LINK_TO_NOTHING`. `read_reference` refuses these two.

        `named_by` tells, in an error, what brought the files up. Raises `DataError` if any
        cannot be read.
        """
        started_ns = time.time_ns()
        kept = self._kept()
        with ThreadPoolExecutor() as threads:
            status = pl.DataFrame(
                _map(threads, _status, files, named_by), schema=STATUS, orient="row"
            )
            known = status.join(kept, on=list(STATUS), how="left", maintain_order="left")
            unknown = known.filter(pl.col("digest").is_null())["path"].unique(maintain_order=True)
            fresh = _map(threads, partial(_digest, largest), unknown.to_list(), named_by)
        read = pl.DataFrame({"path": unknown, "fresh": pl.Series(fresh, dtype=pl.String)})
        found = known.join(read, on="path", how="left", maintain_order="left").select(
            *STATUS, pl.coalesce("digest", "fresh").alias("digest")
        )
        settled_ns = started_ns - int(self.settle_seconds * 1e9)
        settled = found.filter(pl.max_horizontal("modified_ns", "changed_ns") < settled_ns).unique(
            maintain_order=True
        )
        if len(unknown) or settled.height != kept.height:
            with skipped_where_refused(), replacing(self.path) as temporary:
                settled.write_parquet(temporary)
        return found["digest"].to_list()

    def with_references(
        self, rows: pl.DataFrame, files: Sequence[str], named_by: str, *, digests: bool
    ) -> tuple[pl.DataFrame, int | None]:
        """`rows` with the `digest` and the `reference` of their image files. Without `digests` they
        are empty and no file is read, and the files' size in bytes is told.

        Raises `DataError` if any cannot be read.
        """
        size = None
        if digests:
            known = self.digests(files, named_by, LARGEST_IMAGE)
        else:
            known = [""] * len(files)
            with ThreadPoolExecutor() as threads:
                size = sum(status[1] for status in _map(threads, _status, files, named_by))
        references = list(map(reference_of, files, known))
        return rows.with_columns(
            pl.Series("digest", known, pl.String), pl.Series("reference", references, pl.String)
        ), size

    def _kept(self) -> pl.DataFrame:
        """What the last scan left; nothing if the file is absent or not whole."""
        nothing = pl.DataFrame(schema={**STATUS, "digest": pl.String()})
        try:
            kept = read_parquet(self.path)
        except (OSError, StoreError):
            return nothing
        return kept.unique(list(STATUS)) if kept.schema == nothing.schema else nothing


def lies_in(folder: str, path: str) -> bool:
    """Whether `path` is `folder` or below it, both absolute and without links."""
    return os.path.commonpath([folder, path]) == folder


class OnDisk:
    """Finds files by names whose letters may be composed differently from those on the disk."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, str]] = {}  # by folder, composed name → the disk's

    def path(self, path: str) -> str:
        """The path as the disk has it; unchanged where it has none by any form of that name."""
        if path.isascii() or os.path.lexists(path):
            return path
        folder, name = os.path.split(path)
        if folder == path:
            return path
        folder = self.path(folder)
        if folder not in self._names:
            try:
                names = os.listdir(folder or ".")
            except OSError:
                names = []
            self._names[folder] = {composed(there): there for there in names}
        return os.path.join(folder, self._names[folder].get(composed(name), name))


def resolved(base: Path, path: Path) -> Path:
    """Absolute, without `..` and with letters composed as on the disk, but with links
    unresolved."""
    return Path(OnDisk().path(os.path.abspath(base / path.expanduser())))


def reference_of(path: str, digest: str) -> str:
    """What `read_reference` needs: where the file is, and what it must hold."""
    return f"{digest}:{path}"


def read_reference(reference: str) -> bytes:
    """The file's bytes.

    Raises `DataError` if they are not those whose digest was taken, if it was, and
    `UnreadableImageError` if they are more than `LARGEST_IMAGE`, or the file is a link to nothing.
    """
    digest, _, path = reference.partition(":")
    is_link = digest == LINK_TO_NOTHING or (not digest and os.path.islink(path))
    if is_link and not os.path.exists(path):
        raise UnreadableImageError("a link to nothing")
    try:
        size = os.path.getsize(path)
        if size > LARGEST_IMAGE:
            raise UnreadableImageError(f"it has {size:,} bytes, more than {LARGEST_IMAGE:,}")
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} was there when its folder was scanned and cannot be read now "
            f"({error.strerror}): run again when nothing changes the folder"
        ) from error
    if digest and digest_of_bytes(data) != digest:
        raise DataError(
            f"{path} changed after its folder was scanned: run again when nothing changes it"
        )
    return data


def _map(
    threads: ThreadPoolExecutor,
    function: Callable[[str], Value | OSError],
    files: Sequence[str],
    named_by: str,
) -> list[Value]:
    """`function` of each file, in order, in tasks of many files so that millions fit in memory."""
    tasks = [files[i : i + FILES_PER_TASK] for i in range(0, len(files), FILES_PER_TASK)]
    results = [
        result for task in threads.map(lambda f: [function(x) for x in f], tasks) for result in task
    ]
    failed = [
        f"{file} ({result.strerror})"
        for file, result in zip(files, results, strict=True)
        if isinstance(result, OSError)
    ]
    if failed:
        hint = SEPARATED if "\\" in failed[0] else ""
        raise DataError(
            f"{named_by}: {len(failed)} of {len(files)} images cannot be read: {shortlist(failed)}"
            f"{hint}"
        )
    return [result for result in results if not isinstance(result, OSError)]


def _status(path: str) -> tuple[str, int, int, int, int] | OSError:
    try:
        status = os.stat(path)
    except OSError as error:
        return (path, 0, 0, 0, 0) if os.path.islink(path) else error
    except ValueError:  # a null character
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _digest(largest: int | None, path: str) -> str | OSError:
    try:
        size = os.path.getsize(path)
        if largest is not None and size > largest:
            return digest_of({"bytes": size})
        return digest_of_file(Path(path))
    except OSError as error:
        return LINK_TO_NOTHING if os.path.islink(path) and not os.path.exists(path) else error
