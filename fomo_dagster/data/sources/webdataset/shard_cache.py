"""Remote tars on the local disk: fetched whole, shared by processes, least recently used removed
first.

A tar on this machine is used in place. A tar's content is listed when it is first used, and the
listing is kept next to it. Which tar is needed when is not decided here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
from fsspec.callbacks import Callback

from fomo_dagster.data.downloading import check_size
from fomo_dagster.data.images import UnreadableImageError, glimpsed
from fomo_dagster.data.sources.webdataset.listing import ShardFile, is_local
from fomo_dagster.data.sources.webdataset.members import PLACED, RULES, scan_tar
from fomo_dagster.errors import DataError, FomoError, StoreError
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.files import replacing, write_bytes
from fomo_dagster.store.leases import lease

WAITS_SECONDS = (1.0, 4.0, 16.0)  # before each further attempt to fetch
FINAL = (FileNotFoundError, PermissionError, ImportError, FomoError)  # trying again cannot help
GLIMPSES = 100  # images of a tar, at most, that are looked at for what is odd of them
ABANDONED_SECONDS = 3600.0  # a hidden file that nobody wrote to for so long is no download

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardCache:
    """A folder that holds up to `limit_bytes` of tars and listings.

    Tars that are being fetched, and those that a process still has open, come on top. images:
    the extensions of images, as in `scan_tar`.
    """

    folder: Path
    limit_bytes: int
    images: tuple[str, ...]

    def tar(self, shard: ShardFile) -> Path:
        """The tar on this machine, fetched where it is not there.

        Raises `DataError`, naming the shard, if that fails several times or it is another one
        than was listed.
        """
        if is_local(shard.url):
            return Path(shard.url)
        path = self.folder / f"{_address(shard)}.tar"
        if not _touched(path):
            with self._lease(path.name):
                if not _touched(path):
                    self._make_room(shard.size or 0)
                    self._fetch(shard, path)
        return path

    def opened(self, shard: ShardFile) -> tuple[int, pl.DataFrame]:
        """A descriptor of the tar, which the caller closes, and its usable samples (PLACED)."""
        while True:
            path = self.tar(shard)
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError as error:
                if is_local(shard.url):
                    raise DataError(
                        f"the shard {shard.url} is gone: put it back, or run again without it"
                    ) from error
                continue  # another process made room just now
            except OSError as error:
                raise DataError(
                    f"the shard {shard.url} cannot be read: {error.strerror}"
                ) from error
            try:
                return descriptor, self._samples(shard, path)
            except FileNotFoundError:
                os.close(descriptor)
            except BaseException:
                os.close(descriptor)
                raise

    def samples(self, shard: ShardFile) -> pl.DataFrame:
        """The usable samples (PLACED) of the tar; see `tar` for what it raises."""
        descriptor, samples = self.opened(shard)
        os.close(descriptor)
        return samples

    def counts(self, shard: ShardFile) -> dict[str, Any] | None:
        """Of a tar that was once listed here: `samples`, `broken` and the `reasons` why not all of
        it can be used, and how many of the `glimpsed` images were `transparent` or `flat`; None of
        another one."""
        with contextlib.suppress(OSError, ValueError):
            counts: dict[str, Any] = json.loads(self._counts_path(shard).read_bytes())
            return counts
        return None

    def _samples(self, shard: ShardFile, path: Path) -> pl.DataFrame:
        listing = self.folder / f"{self._listed(shard)}.parquet"
        if _touched(listing):
            with contextlib.suppress(OSError, StoreError):
                return read_parquet(listing, columns=PLACED)
        with self._lease(listing.name):
            if _touched(listing):
                with contextlib.suppress(OSError, StoreError):
                    return read_parquet(listing, columns=PLACED)
            scan = scan_tar(path, self.images, digests=False)
            with replacing(listing) as temporary:
                scan.samples.write_parquet(temporary)
        broken = int(scan.broken["samples"].fill_null(1).sum())
        counts = {"samples": scan.samples.height, "broken": broken, "reasons": scan.reasons()}
        odd = _glimpsed(path, scan.samples)
        counts |= odd
        write_bytes(self._counts_path(shard), json.dumps(counts).encode())
        if broken:
            logger.warning(
                "%d members of the shard %s are skipped, %d can be used: %s",
                broken, shard.url, scan.samples.height, "; ".join(scan.reasons()[:5]),
            )  # fmt: skip
        if odd["transparent"] or odd["flat"]:
            logger.warning(
                "of %d images of the shard %s that were looked at, %d have transparency, which "
                "shows the background, and %d are of one colour alone",
                odd["glimpsed"], shard.url, odd["transparent"], odd["flat"],
            )  # fmt: skip
        return scan.samples

    def _fetch(self, shard: ShardFile, path: Path) -> None:
        for wait in (*WAITS_SECONDS, None):
            try:
                with replacing(path) as temporary:
                    filesystem, remote = fsspec.url_to_fs(shard.url)
                    filesystem.get_file(remote, str(temporary), callback=_Limited(shard))
                    _check_size(shard, temporary.stat().st_size)
                return
            except FINAL as error:
                if isinstance(error, FomoError):
                    raise
                raise DataError(f"the shard {shard.url} cannot be fetched: {error}") from error
            except Exception as error:  # stores raise nearly anything for a lost connection
                if wait is None:
                    raise DataError(
                        f"the shard {shard.url} could not be fetched in {len(WAITS_SECONDS) + 1} "
                        f"attempts ({type(error).__name__}: {error}): run again, to go on, when "
                        "the store can be reached"
                    ) from error
                logger.warning("fetching %s failed (%s); again in %g s", shard.url, error, wait)
                time.sleep(wait)

    def _make_room(self, size: int) -> None:
        """Remove what was used longest ago until `size` bytes fit in."""
        with self._lease("room"):
            files = []
            for path in self.folder.glob("*"):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    busy = path.name.startswith(".") and (
                        time.time() - status.st_mtime < ABANDONED_SECONDS
                    )
                    if path.is_file() and not busy:
                        files.append((status.st_mtime_ns, status.st_size, path))
            total = sum(length for _, length, _ in files)
            for _, length, path in sorted(files):
                if total + size <= self.limit_bytes:
                    break
                path.unlink(missing_ok=True)
                total -= length

    @contextlib.contextmanager
    def _lease(self, name: str) -> Iterator[None]:
        with lease(self.folder / "leases" / name):
            yield

    def _listed(self, shard: ShardFile) -> str:
        return f"{_address(shard)}-{digest_of([self.images, RULES])[:8]}"

    def _counts_path(self, shard: ShardFile) -> Path:
        return self.folder / "counts" / f"{self._listed(shard)}.json"


class _Limited(Callback):  # type: ignore[misc]
    """Ends a download that brings more than its store listed, or than a download may have."""

    def __init__(self, shard: ShardFile) -> None:
        super().__init__()
        self._shard = shard
        if shard.size is not None:
            check_size(shard.url, shard.size)

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        check_size(self._shard.url, self.value)
        if self._shard.size is not None:
            _check_size(self._shard, max(self.value, self._shard.size))


def _glimpsed(path: Path, samples: pl.DataFrame) -> dict[str, int]:
    """How many of some images, spread over the tar, have transparency or one colour alone."""
    some = samples.gather_every(max(1, -(-samples.height // GLIMPSES)))
    counts = dict.fromkeys(("glimpsed", "transparent", "flat"), 0)
    with path.open("rb") as tar:
        for offset, size in some.select("offset", "size").iter_rows():
            with contextlib.suppress(UnreadableImageError):  # said where it is drawn
                seen = glimpsed(os.pread(tar.fileno(), size, offset))
                counts["glimpsed"] += 1
                counts["transparent"] += seen.transparent
                counts["flat"] += seen.flat
    return counts


def _address(shard: ShardFile) -> str:
    return digest_of([shard.url, shard.size, shard.version])


def _touched(path: Path) -> bool:
    """Whether the file is there; it then counts as used now."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _check_size(shard: ShardFile, size: int) -> None:
    if shard.size is not None and size != shard.size:
        raise OSError(f"{size} bytes came, and {shard.size} were listed")
