"""Table files: the rows that one asset states, in one Parquet file per asset and digest.

`home/tables/<table>/<asset key>/<digest>.parquet` is written as a whole and never edited, so any
number of runs can write and any number of people can read. A file is history unless a head points
to its digest; `fomo_dagster.tables.views` joins the two.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import polars as pl

from fomo_dagster.errors import InputError
from fomo_dagster.store.files import fsync, write_bytes
from fomo_dagster.tables.schemas import conform, schema_of

# One file per asset and digest is found by its name: nothing in it may be a glob or leave the home.
_ASSET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(/[A-Za-z0-9_][A-Za-z0-9_-]*)*")
_DIGEST = re.compile(r"[0-9a-f]{32}")


def table_path(home: Path, table: str, asset: str, digest: str) -> Path:
    """Where the rows of `table` are that the asset states under that digest.

    asset: the parts of its key, joined by `/`. Raises `InputError` if a name cannot be a path.
    """
    schema_of(table)
    if not _ASSET.fullmatch(asset):
        raise InputError(
            f"{asset!r} cannot name a table file: an asset key is parts of letters, digits, `_` "
            "and `-`, joined by `/`"
        )
    if not _DIGEST.fullmatch(digest):
        raise InputError(f"{digest!r} is not a digest: 32 hexadecimal digits were expected")
    return home / "tables" / table / asset / f"{digest}.parquet"


def write_table(home: Path, table: str, asset: str, digest: str, frame: pl.DataFrame) -> Path:
    """Write the rows that the asset states under `digest`, whole or not at all; return the file.

    Writing the same rows again leaves the same bytes. Raises `StoreError` if the frame does not
    fit the table's schema, or the disk refuses.
    """
    path = table_path(home, table, asset, digest)
    made = [folder for folder in path.parents if not folder.exists()]
    # Encoded in memory: Polars reports a full disk as a defect of the format, Python as what it is.
    encoded = io.BytesIO()
    conform(table, frame).write_parquet(encoded, compression="zstd")
    write_bytes(path, encoded.getvalue())
    for folder in made:  # a new folder's own entry is only on disk once its parent is flushed
        fsync(folder.parent)
    return path
