"""The files of a gallery's artifact: embeddings by sample, in Parquet, a part at a time.

`embeddings.parquet` has the columns of `rows.COLUMNS` and `embedding`, a list of D numbers
(float32) of length 1. `groups.parquet` says which rows are the groups. Embeddings are never held
whole: ten million of 512 numbers are 20 GB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from pyarrow import parquet

from fomo_dagster.errors import StoreError
from fomo_dagster.galleries.groups import Group
from fomo_dagster.galleries.rows import COLUMNS
from fomo_dagster.parquet import read_parquet
from fomo_dagster.tables.store_files import OF_GALLERIES

EMBEDDINGS = OF_GALLERIES.file
GROUPS = "groups.parquet"
INDEX = "index.faiss"
EMBEDDING = "embedding"
ROWS_AT_ONCE = 8192  # of a row group; 16 MiB of 512 numbers each

Floats = npt.NDArray[np.float32]


class EmbeddingsWriter:
    """Writes `embeddings.parquet` as rows come. The same rows give the same bytes, however many
    come at a time: each row group but the last has `ROWS_AT_ONCE`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None
        self._waiting: list[tuple[pl.DataFrame, Floats]] = []
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        if kind is None:
            while self._count:
                self._write(min(self._count, ROWS_AT_ONCE))
            if self._writer is None:
                write_empty(self._path)
        if self._writer is not None:
            self._writer.close()

    def add(self, rows: pl.DataFrame, embeddings: Floats) -> None:
        """rows: N rows with `COLUMNS`; embeddings: (N, D)."""
        self._waiting.append((rows.select(*COLUMNS), embeddings))
        self._count += rows.height
        while self._count >= ROWS_AT_ONCE:
            self._write(ROWS_AT_ONCE)

    def _write(self, count: int) -> None:
        rows = pl.concat([rows for rows, _ in self._waiting])
        embeddings = np.concatenate([block for _, block in self._waiting])
        table = _table(rows.head(count), embeddings[:count])
        if self._writer is None:
            self._writer = parquet.ParquetWriter(
                self._path, table.schema,
                use_dictionary=["split", "concept"],
                # Not embeddings: they hardly get smaller, and every search reads all of them.
                compression=dict.fromkeys(COLUMNS, "zstd"),
                write_statistics=["split", "key", "concept"],
                column_encoding={"key": "DELTA_BYTE_ARRAY"},
            )  # fmt: skip
        self._writer.write_table(table, row_group_size=ROWS_AT_ONCE)
        self._count -= count
        self._waiting = [(rows.slice(count), embeddings[count:])] if self._count else []


def _table(rows: pl.DataFrame, embeddings: Floats) -> pa.Table:
    """A table of N rows and their embeddings, (N, D)."""
    numbers = pa.array(np.ascontiguousarray(embeddings, dtype=np.float32).ravel())
    lists = pa.FixedSizeListArray.from_arrays(numbers, embeddings.shape[1])
    columns = {name: rows[name].to_arrow().cast(pa.string()) for name in COLUMNS}
    return pa.table({**columns, EMBEDDING: lists})


def write_empty(path: Path) -> None:
    """A file of no embeddings, of no size."""
    pl.DataFrame(schema={**COLUMNS, EMBEDDING: pl.List(pl.Float32())}).write_parquet(path)


class EmbeddingsReader:
    """Reads embeddings by the places of their rows. What is read in order is read once: it holds a
    row group at a time. Raises `StoreError` for what is no such file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = parquet.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise StoreError(
                f"{path} cannot be read ({error}): remove its folder, and run again to make it"
            ) from error
        self._sizes = [
            self._file.metadata.row_group(n).num_rows for n in range(self._file.num_row_groups)
        ]
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)]).astype(int)
        self._held: tuple[int, Floats] | None = None

    @property
    def rows(self) -> int:
        """How many there are."""
        return int(self._starts[-1])

    @property
    def dimensions(self) -> int:
        """Numbers of an embedding; 0 where there is none."""
        kind = self._file.schema_arrow.field(EMBEDDING).type
        return kind.list_size if pa.types.is_fixed_size_list(kind) else 0

    def read(self, start: int, count: int) -> Floats:
        """(count, D): those from the place `start` on. Raises `StoreError` where there are less."""
        if start + count > self.rows:
            raise StoreError(
                f"{self._path} has {self.rows} rows, and {count} from {start} on were expected: "
                "remove its folder, and run again to make it"
            )
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        blocks, place = [], start
        while place < start + count:
            block, offset = self._row_group(first), place - int(self._starts[first])
            taken = block[offset : offset + start + count - place]
            blocks.append(taken)
            place, first = place + len(taken), first + 1
        return np.concatenate(blocks)

    def concepts(self) -> pl.Series:
        """The concept of each row, in their order."""
        return pl.Series(pl.from_arrow(self._file.read(columns=["concept"])["concept"]))

    def columns(self, places: Sequence[int]) -> pl.DataFrame:
        """`COLUMNS` of the rows at some places, in the order of these."""
        wanted = pl.DataFrame({"place": places}, schema={"place": pl.Int64})
        numbers = np.unique(np.searchsorted(self._starts, places, side="right") - 1)
        found = [pl.DataFrame(schema={"place": pl.Int64(), **COLUMNS})]
        for number in numbers.tolist():
            table = self._file.read_row_group(number, columns=list(COLUMNS))
            rows = pl.DataFrame(pl.from_arrow(table)).with_row_index("place", self._starts[number])
            found.append(rows.cast({"place": pl.Int64}).filter(pl.col("place").is_in(places)))
        return wanted.join(pl.concat(found), on="place", maintain_order="left").select(*COLUMNS)

    @property
    def last(self) -> tuple[str, str]:
        """The split and the key of the last row; before all others where there is none."""
        if not self.rows:
            return "", ""
        row = self.columns([self.rows - 1])
        return row["split"].item(), row["key"].item()

    def count_until(self, split: str, key: str) -> int:
        """How many rows come first, up to this place, with it."""
        names = pl.DataFrame(pl.from_arrow(self._file.read(columns=["split", "key"])))
        later = (pl.col("split") > split) | ((pl.col("split") == split) & (pl.col("key") > key))
        return self.rows - int(names.select(later.sum()).item())

    def _row_group(self, number: int) -> Floats:
        if self._held is None or self._held[0] != number:
            column = self._file.read_row_group(number, columns=[EMBEDDING])[EMBEDDING]
            numbers = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
            self._held = number, numbers.reshape(-1, self.dimensions)
        return self._held[1]


def write_groups(groups: Sequence[Group], path: Path) -> None:
    """Write which rows are the groups."""
    schema = {"digest": pl.String(), "start": pl.Int64(), "rows": pl.Int64()}
    pl.DataFrame([asdict(group) for group in groups], schema=schema).write_parquet(path)


def read_groups(path: Path) -> list[Group]:
    """The groups of a gallery, in order."""
    return [Group(**row) for row in read_parquet(path).iter_rows(named=True)]
