"""Random access to the images of a sharded dataset: a table of samples, and reads by offset.

It reads what `data/shards.py` wrote and decodes nothing. Sequential reading needs none of this: the
shards are plain WebDataset tars.
"""

from __future__ import annotations

import os
from functools import cached_property, lru_cache
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from fomo_dagster.data.samples import INDEX, SAMPLES
from fomo_dagster.errors import DataError

INDEX_FILE = "index.parquet"
OPEN_SHARDS = 128  # a process may often hold only 256 files, and shards are not its only ones

_serials = count()


class Index:
    """The samples of one dataset's shard folder.

    `is_checked`: whether every image was decoded whole before it came in here. Safe to read from
    several threads. A pickled copy holds the folder alone and opens its files
    again, so that sending it to worker processes is cheap. Raises `DataError` where the folder has
    no index.
    """

    is_checked: ClassVar[bool] = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Shards made again under the same path are other files: an open one serves one `Index`.
        self._serial = next(_serials)
        if not (folder / INDEX_FILE).is_file():
            raise DataError(f"no {INDEX_FILE} in {folder}: it is not a folder of shards")

    def __reduce__(self) -> tuple[type[Index], tuple[Any, ...]]:
        return Index, (self.folder,)

    @cached_property
    def samples(self) -> pl.DataFrame:
        """All rows, columns of `INDEX`, sorted by split and key (`test` before `train`)."""
        return pl.read_parquet(self.folder / INDEX_FILE, columns=list(INDEX))

    @property
    def sample_table(self) -> pl.DataFrame:
        """All rows, columns of `SAMPLES`: what the dataset brings, without where it lies."""
        return self.samples.select(*SAMPLES)

    def rows(self, split: str) -> pl.DataFrame:
        """The rows of a split, columns of `INDEX`, sorted by key."""
        return self.samples.filter(pl.col("split") == split)

    def path(self, shard: str) -> Path:
        """Where the shard of that name lies."""
        return self.folder / shard

    def read(self, shard: str, offset: int, size: int) -> bytes:
        """The bytes of an image as stored. Raises `DataError` where the shard lacks them."""
        try:
            opened = _open(self.path(shard), self._serial)
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


class _OpenShard:
    """A file descriptor that closes when the cache and all readers let go of it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@lru_cache(maxsize=OPEN_SHARDS)
def _open(path: Path, serial: int) -> _OpenShard:
    return _OpenShard(path)
