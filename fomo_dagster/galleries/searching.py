"""Exact search: the rows of a gallery whose embeddings are nearest to one, by DuckDB.

DuckDB reads the file a part at a time and keeps the best, so that no gallery is ever held whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.galleries.files import EMBEDDING, EmbeddingsReader, Floats
from fomo_dagster.galleries.rows import COLUMNS
from fomo_dagster.tables.selects import escaped

FOUND: dict[str, pl.DataType] = {"rank": pl.Int64(), "similarity": pl.Float64(), **COLUMNS}
"""The columns of what is found. rank: from 1. similarity: the cosine."""


Place = tuple[str, str]
"""The split and the key of a row, by which rows are in order."""


def nearest_rows(file: Path, query: Floats, top: int, after: Place = ("", "")) -> pl.DataFrame:
    """The `top` rows of a gallery's embeddings that are most similar to a query, (D,), of length 1:
    `FOUND`, the most similar first; of equal ones the first by split and key. after: only rows that
    come after this place.

    Raises `InputError` where the gallery's embeddings are of another size: other weights made them.
    """
    check_size(file, query)
    columns = ", ".join(COLUMNS)
    sql = (
        f"SELECT list_inner_product({EMBEDDING}, $query::FLOAT[])::DOUBLE "
        f"AS similarity, {columns} FROM read_parquet($file) "
        "WHERE (split, key) > ($split, $key) ORDER BY similarity DESC, split, key, text LIMIT $top"
    )
    split, key = after
    asked = {"query": query.tolist(), "top": top, "split": split, "key": key}
    return ranked(_answer(sql, file, asked))


def rows_at(file: Path, places: Sequence[int], similarities: Sequence[float]) -> pl.DataFrame:
    """`FOUND` of the rows at these places of a gallery, in their order."""
    if not places:
        return pl.DataFrame(schema=FOUND)
    rows = EmbeddingsReader(file).columns(places)
    return ranked(rows.with_columns(similarity=pl.Series(similarities)))


def _answer(sql: str, file: Path, parameters: Mapping[str, Any]) -> pl.DataFrame:
    try:
        with duckdb.connect() as connection:
            asked = connection.sql(sql, params={"file": escaped(str(file)), **parameters})
            rows: pl.DataFrame = asked.pl()
            return rows
    except duckdb.Error as error:
        raise StoreError(f"{file} could not be searched: {error}") from error


def ranked(rows: pl.DataFrame) -> pl.DataFrame:
    """`FOUND` of rows that are in order."""
    numbered = rows.drop("rank", strict=False).with_row_index("rank", offset=1)
    return numbered.select(*FOUND).cast(pl.Schema(FOUND))


def check_size(file: Path, query: Floats) -> None:
    """Raises `InputError` for a query, (D,), of another size than the embeddings of a gallery."""
    size = EmbeddingsReader(file).dimensions
    if size and size != len(query):
        raise InputError(
            f"the query has {len(query)} numbers, and the embeddings in {file} have {size}: other "
            "weights made them, and similarities between the two mean nothing"
        )
