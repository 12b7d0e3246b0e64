"""Decoded pictures on the local disk, so that an image that is seen often is decoded once.

A file a picture: its height, width and a sum of its pixels, and the pixels, 8-bit RGB. They are
those that decoding gives, so a cache is never part of identity. It belongs to a folder of shards,
whose content never changes. Files come whole to their place; one that was damaged since, as by a
loss of power, does not have its sum and is written again. Nothing is removed here: the folder may
be deleted at any time.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fomo_dagster.data.decoders import Array
from fomo_dagster.store.files import replacing

USED = "used"  # bytes in all caches of a folder
_HEADER = 3 * 8  # height, width and sum, as unsigned integers of 64 bits

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodedCache:
    """root: the folder of all caches, which hold up to `limit_bytes` together. name: of this
    one, of the digest of what it is of. Picklable, and shared by processes."""

    root: Path
    name: str
    limit_bytes: int

    def picture(self, shard: str, offset: int, decode: Callable[[], Array]) -> Array:
        """The picture at a place, (H, W, 3): of the cache, or decoded and kept while there is room.
        Raises what `decode` raises."""
        path = self.root / self.name / shard.replace("/", "+") / str(offset)
        found = _read(path)
        if found is None:
            found = decode()
            self._keep(path, found)
        return found

    def _keep(self, path: Path, picture: Array) -> None:
        if self.root in _full:
            return
        header = np.array([*picture.shape[:2], _sum(picture.reshape(-1))], np.uint64)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not self._take(_HEADER + picture.nbytes):
                _stop(self.root, f"it has the {self.limit_bytes / 2**30:g} GiB that it may have")
                return
            with replacing(path) as written:
                written.write_bytes(header.tobytes() + picture.tobytes())
        except OSError as error:
            _stop(self.root, str(error))

    def _take(self, size: int) -> bool:
        """Count bytes that will be written; False where they are too many."""
        with (self.root / USED).open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            used = int(file.read() or b"0") + size
            if used > self.limit_bytes:
                return False
            file.truncate(0)
            file.write(str(used).encode())
        return True


_full: set[Path] = set()  # to which this process writes nothing more


def _stop(root: Path, why: str) -> None:
    _full.add(root)
    logger.warning(
        "no more decoded images are kept in %s (%s): raise execution.decoded_cache_gib, or delete "
        "the folder, if it holds those of datasets that you no longer use", root, why,
    )  # fmt: skip


def _read(path: Path) -> Array | None:
    """None where there is no whole one."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        data = np.empty(os.fstat(descriptor).st_size, np.uint8)
        read = os.readv(descriptor, [data.data]) if data.size else 0
    finally:
        os.close(descriptor)
    if read != data.size or read < _HEADER:
        return None
    height, width, expected = data[:_HEADER].view(np.uint64).tolist()
    levels = data[_HEADER:]
    if levels.size != height * width * 3 or _sum(levels) != expected:
        return None
    return levels.reshape(height, width, 3)


def _sum(levels: Array) -> int:
    """Of N bytes, in words of 8, which takes a tenth of reading them."""
    whole = levels.size // 8 * 8
    words = levels[:whole].view(np.uint64).sum(dtype=np.uint64)
    return int(words) ^ int(levels[whole:].sum(dtype=np.uint64)) ^ levels.size
