"""Tables that are kept between looks, for sources that must read much to list their samples."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from fomo_dagster.errors import DataError, StoreError
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.files import replacing, skipped_where_refused

KEY = "fomo_table_of"
SETTLE_SECONDS = 2.0  # see `DigestCache`


def stamp(file: Path) -> str | None:
    """Of a file's state; None if it changed too recently to tell its next change from that.

    Raises `DataError` if there is no such file.
    """
    try:
        status = os.stat(file)
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    changed_ns = max(status.st_mtime_ns, status.st_ctime_ns)
    if changed_ns >= time.time_ns() - int(SETTLE_SECONDS * 1e9):
        return None
    return digest_of(
        [str(file), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    )


def recall(path: Path, key: str | None, schema: Mapping[str, pl.DataType]) -> pl.DataFrame | None:
    """The table kept at `path`; None if there is none, or if it was not made for `key`.

    key: a digest of everything that the table is a function of; None: that is not known.
    """
    try:
        if key is None or pl.read_parquet_metadata(path).get(KEY) != key:
            return None
        kept = read_parquet(path)
    except (OSError, StoreError, pl.exceptions.PolarsError):
        return None
    return kept if dict(kept.schema) == dict(schema) else None


def keep(path: Path, key: str | None, table: pl.DataFrame) -> pl.DataFrame:
    """Keep `table` at `path` in place of what is there, unless `key` is None; returns it."""
    if key is not None:
        with skipped_where_refused(), replacing(path) as temporary:
            table.write_parquet(temporary, metadata={KEY: key})
    return table
