"""Reading Parquet files that this project wrote, by their exact names.

Polars by itself takes `[`, `*` and `?` in a path for a pattern and reads every file that matches.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fomo_dagster.errors import StoreError

if TYPE_CHECKING:
    import polars as pl


def read_parquet(path: Path, columns: Iterable[str] | None = None) -> pl.DataFrame:
    """The rows of the file at `path`; of all columns where `columns` does not choose some.

    Raises `StoreError` if it is no whole Parquet file, or lacks one of `columns`.
    """
    import polars as pl

    names = None if columns is None else list(columns)
    try:
        return pl.read_parquet(path, columns=names, glob=False)
    except pl.exceptions.PolarsError as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise StoreError(
            f"{path} cannot be read ({said[:200]}): remove its folder, and run again to make it"
        ) from error
