"""Makes one order of what is found in the parts of a gallery that different weights embedded.

While a gallery is refreshed, newer weights have embedded its first rows, and older ones the rest.
Each part is asked by a query of its own weights. Their cosines cannot be compared: those of one
model may lie higher. So those of the older part are shifted, for each query by what the nearest of
the rows that both embedded are apart in the mean. docs/log.md has what else was tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from fomo_dagster.errors import StoreError
from fomo_dagster.galleries.files import EMBEDDING, EmbeddingsReader, Floats
from fomo_dagster.tables.selects import escaped

NEAREST, LEAST_NEAREST = 0.02, 10  # share of the rows in common that a shift is taken from
BLOCKS, ROWS_OF_BLOCK = 8, 256  # rows beside each other, since a file is read in row groups
_ROW = ["split", "key", "digest"]


@dataclass(frozen=True)
class CommonRows:
    """Embeddings of the same S rows by newer weights, (S, D), and by older ones, (S, E)."""

    newer: Floats
    older: Floats

    @classmethod
    def of(cls, newer: Path, older: Path) -> CommonRows:
        """Some rows of the newer file, evenly spread, that the older one has too."""
        reader = EmbeddingsReader(newer)
        starts = np.linspace(0, max(reader.rows - ROWS_OF_BLOCK, 0), BLOCKS).astype(int)
        ends = np.minimum(starts + ROWS_OF_BLOCK, reader.rows)
        places = np.unique(
            np.concatenate([np.arange(*both) for both in zip(starts, ends, strict=True)])
        )
        rows = reader.columns(places.tolist()).with_columns(place=pl.Series(places))
        sql = (
            f"SELECT rows.place, file.{EMBEDDING} FROM read_parquet($file) AS file "
            f"JOIN rows USING ({', '.join(_ROW)}) ORDER BY rows.place"
        )
        try:
            with duckdb.connect() as connection:
                connection.register("rows", rows.select("place", *_ROW))
                found = connection.sql(sql, params={"file": escaped(str(older))}).pl()
        except duckdb.Error as error:
            raise StoreError(f"{older} could not be read: {error}") from error
        places = found["place"].to_list()
        own = [reader.read(place, 1)[0] for place in places]
        sizes = reader.dimensions, EmbeddingsReader(older).dimensions
        both = (own, found[EMBEDDING].to_list())
        return cls(
            *(
                np.array(of, np.float32).reshape(-1, size)
                for of, size in zip(both, sizes, strict=True)
            )
        )

    def shift(self, newer: Floats, older: Floats) -> float:
        """What is added to cosines with a query's older embedding, (E,), to stand beside those with
        its newer one, (D,). 0 where no row is known to both."""
        count = max(LEAST_NEAREST, round(NEAREST * len(self.newer)))
        own, other = (
            np.sort(embeddings @ query)[-count:]
            for embeddings, query in ((self.newer, newer), (self.older, older))
        )
        return float(own.mean() - other.mean()) if len(own) else 0.0
