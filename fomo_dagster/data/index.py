"""Random access to the images of a sharded dataset: a table of samples, and reads by offset.

It reads what `data/shards.py` wrote, and knows how its images are shown. Sequential reading needs
none of this: the shards are plain WebDataset tars.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import threading
import weakref
from collections.abc import Callable
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import polars as pl
from PIL import Image

from fomo_dagster.data.decoded_cache import DecodedCache
from fomo_dagster.data.decoders import decoded_array
from fomo_dagster.data.decoding import Decoding
from fomo_dagster.data.images import UnreadableImageError, decoded
from fomo_dagster.data.samples import INDEX, SAMPLES, check_keys
from fomo_dagster.errors import DataError
from fomo_dagster.parquet import read_parquet

INDEX_FILE = "index.parquet"
DECODING = "fomo_decoding"  # the key of the file's metadata
SIZED_IMAGES = 30  # that the size of all is told by
OPEN_SHARDS = 128  # of all indexes together, and at most a quarter of what a process may open

# Beside the index or, of a view, in the artifact of the shards that it is a view of.
_SHARD = re.compile(r"(\.\./\.\./shards/[0-9a-f]{32}/)?(?!\.{1,2}$)[^/\\\0]+")

T = TypeVar("T")

_serials = count()


class Index:
    """The samples of one dataset's shard folder.

    `is_checked`: whether every image was decoded whole before it came in here. Safe to read from
    several threads. A pickled copy holds its folders alone and opens its files
    again, so that sending it to worker processes is cheap. Raises `DataError` if the folder has
    no index.
    """

    is_checked: ClassVar[bool] = True

    def __init__(self, folder: Path, kept: DecodedCache | None = None) -> None:
        self.folder, self._kept = folder, kept
        if not (folder / INDEX_FILE).is_file():
            raise DataError(f"no {INDEX_FILE} in {folder}: it is not a folder of shards")
        # Shards made again under the same path are other files: an open one serves one `Index`.
        self._serial = next(_serials)
        weakref.finalize(self, _shards.close, self._serial)

    def __reduce__(self) -> tuple[type[Index], tuple[Any, ...]]:
        return Index, (self.folder, self._kept)

    def keeping(self, kept: DecodedCache) -> Index:
        """The same, of which each picture is decoded into an array once, and kept there. As it is
        if its shards may change."""
        return Index(self.folder, kept) if self.is_checked else self

    @cached_property
    def decoding(self) -> Decoding:
        """How the images are shown."""
        told = pl.read_parquet_metadata(self.folder / INDEX_FILE).get(DECODING, "{}")
        return Decoding.from_data(json.loads(told))

    @cached_property
    def samples(self) -> pl.DataFrame:
        """All rows, columns of `INDEX`, sorted by split and key (`test` before `train`)."""
        return read_parquet(self.folder / INDEX_FILE, columns=INDEX)

    @property
    def sample_table(self) -> pl.DataFrame:
        """All rows, columns of `SAMPLES`: what the dataset brings, without where it is stored."""
        return self.samples.select(*SAMPLES)

    def rows(self, split: str) -> pl.DataFrame:
        """The rows of a split, columns of `INDEX`, sorted by key."""
        return self.samples.filter(pl.col("split") == split)

    def path(self, shard: str) -> Path:
        """Where the shard of that name is. Raises `DataError` for a name that leads elsewhere: the
        index may come from a store that others write to."""
        if not _SHARD.fullmatch(shard):
            raise DataError(
                f"the index in {self.folder} names the shard {shard!r}, which is not next to "
                "it or in the same store: materialise the dataset's shards again"
            )
        return self.folder / shard

    def picture(self, shard: str, offset: int, size: int) -> Image.Image:
        """The image (mode RGB); raises as `decoded`."""
        return self.decoded(shard, offset, size, decoded)

    def decoded(
        self, shard: str, offset: int, size: int, decode: Callable[[bytes, Decoding], T]
    ) -> T:
        """The image as `decode` gives it. Raises `DataError` as `read`, and `UnreadableImageError`
        where it cannot be decoded, with what that means for the dataset."""
        if self._kept is not None and decode is decoded_array:
            kept = self._kept.picture(
                shard, offset, lambda: self._decoded(shard, offset, size, decoded_array)
            )
            return cast(T, kept)
        return self._decoded(shard, offset, size, decode)

    def _decoded(
        self, shard: str, offset: int, size: int, decode: Callable[[bytes, Decoding], T]
    ) -> T:
        data = self.read(shard, offset, size)
        try:
            return decode(data, self.decoding)
        except UnreadableImageError as error:
            raise UnreadableImageError(f"cannot be decoded ({error}); {self._way_out}") from error

    @property
    def _way_out(self) -> str:
        if self.is_checked:
            return (
                "it could be when it was stored, so its shard was altered: materialise the "
                "dataset's shards again"
            )
        return "repair its tar, or take the image out of it"

    def read(self, shard: str, offset: int, size: int) -> bytes:
        """The bytes of an image as stored. Raises `DataError` if the shard lacks them."""
        try:
            opened = _shards.open(self.path(shard), self._serial)
        except OSError as error:
            raise DataError(
                f"cannot open the shard {shard} in {self.folder}: {error.strerror}; "
                "materialise the dataset's shards again"
            ) from error
        data = os.pread(opened.descriptor, size, offset)
        if len(data) != size:
            raise DataError(
                f"the shard {self.path(shard)} ends early: {len(data)} of {size} bytes at "
                f"{offset}; materialise the dataset's shards again"
            )
        return data


def write_index(samples: pl.DataFrame, folder: Path, decoding: Decoding) -> None:
    """Write the index of a folder of shards: INDEX, and how the images are shown.

    Raises `DataError` if a key repeats in a split, because every join on keys relies on it being
    unique.
    """
    check_keys(samples, f"the index in {folder}")
    told = {DECODING: json.dumps(decoding.as_data())}
    samples.write_parquet(folder / INDEX_FILE, metadata=told)


def mean_decoded_size(index: Index) -> float:
    """The bytes that an image takes once it is decoded, by some spread over all of them; 0 where
    none of these can be read."""
    places = index.samples.select("shard", "offset", "size")
    sizes: list[int] = []
    for row in range(0, places.height, max(1, places.height // SIZED_IMAGES)):
        shard, offset, size = places.row(row)
        with contextlib.suppress(UnreadableImageError):
            sizes.append(index.decoded(shard, offset, size, decoded_array).nbytes)
    return sum(sizes) / max(1, len(sizes))


class _OpenShard:
    """A file descriptor that closes when the cache and all readers let go of it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class _OpenShards:
    """Those that were read last, of every index of this process."""

    def __init__(self) -> None:
        self._opened: dict[tuple[int, Path], _OpenShard] = {}  # the last read at the end
        self._lock = threading.RLock()  # a collection within `open` may come to `close`

    def open(self, path: Path, serial: int) -> _OpenShard:
        with self._lock:
            opened = self._opened.pop((serial, path), None) or _OpenShard(path)
            self._opened[serial, path] = opened
            while len(self._opened) > _most_shards():
                del self._opened[next(iter(self._opened))]
            return opened

    def close(self, serial: int) -> None:
        """Close those of an index that nobody has any more."""
        with self._lock:
            for key in [key for key in self._opened if key[0] == serial]:
                del self._opened[key]


def _most_shards() -> int:
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return OPEN_SHARDS if allowed < 0 else max(1, min(OPEN_SHARDS, allowed // 4))


_shards = _OpenShards()
