"""Scans that are kept between looks, for sources whose images have to be decoded to be listed."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from fomo_dagster.data.samples import SCAN
from fomo_dagster.store.files import replacing

KEY = "fomo_scan_of"


def recall(path: Path, key: str) -> pl.DataFrame | None:
    """The scan (SCAN) that is kept at `path`; None where there is none, or not one made for `key`.

    key: a digest of everything that the scan is a function of.
    """
    try:
        if pl.read_parquet_metadata(path).get(KEY) != key:
            return None
        kept = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError):
        return None
    return kept if dict(kept.schema) == SCAN else None


def keep(path: Path, key: str, scan: pl.DataFrame) -> pl.DataFrame:
    """Keep `scan` at `path` in place of what is there; returns it."""
    with replacing(path) as temporary:
        scan.write_parquet(temporary, metadata={KEY: key})
    return scan
