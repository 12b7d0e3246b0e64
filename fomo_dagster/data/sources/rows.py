"""Tables that name images and tell about them: Parquet, CSV or JSON lines, read into one form.

Only the columns asked for are read. Each is text, except `caption`, which becomes a list of
captions. Whether the images exist, and what they are, is not checked here.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from fomo_dagster.data.sources.csv_tables import SEPARATORS, read_csv
from fomo_dagster.data.sources.json_lines import read_json_lines
from fomo_dagster.data.sources.tables import (
    PLACE,
    Table,
    TableFormat,
    check_columns,
    check_once,
    opened_text,
)
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.paths import problem_of, said_of
from fomo_dagster.texts import read_json, visible

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")


class Rows(NamedTuple):
    """The rows of a table. frame: `PLACE` and the columns asked for, as far as it has them.

    counted_in: "line" or "row", which `PLACE` counts. unusable: places, paths where they are known,
    and why. unread: the names of the other columns.
    """

    frame: pl.DataFrame
    counted_in: str
    unusable: tuple[tuple[int, str | None, str], ...]
    unread: tuple[str, ...]


def read_rows(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str],
    form: TableFormat,
) -> Rows:
    """The rows of a table: columns `required`, and of `optional` those that it has or that `form`
    names, all by our names.

    `caption` (text or a list) becomes List(String) without blank captions; whole numbers become
    text. Raises `InputError` if there is no such table and `DataError` where it does not hold
    what it should: a column missing or of another type, a blank value in a column of text, or
    anything that could be read in two ways.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path} is not a table: expected a file {', '.join(SUFFIXES)}")
    if (problem := problem_of(path, "file")) is not None:
        raise InputError(problem)
    ours = {form.column(name): name for name in (*required, *optional)}
    required = [*required, *(name for name in optional if name in form.columns)]
    optional = [name for name in optional if name not in required]
    required, optional = [*map(form.column, required)], [*map(form.column, optional)]
    try:
        if suffix == ".parquet":
            table = _read_parquet(path, required, optional, form)
        elif suffix in (".csv", ".tsv"):
            table = read_csv(path, required, optional, form)
        else:
            table = read_json_lines(path, required, optional, form)
    except (pl.exceptions.PolarsError, OSError) as error:
        said = said_of(error, path) if isinstance(error, OSError) else error
        raise DataError(f"{path} cannot be read as a table: {said}") from error
    if table.rows.is_empty() and not table.unusable:
        raise DataError(f"{path} has no rows below the names of its columns: add some")
    frame = table.rows.select(
        PLACE,
        *(
            (
                _captions(path, table.rows[name])
                if ours[name] == "caption"
                else _text(path, table, name)
            ).alias(ours[name])
            for name in ours
            if name in table.rows.columns
        ),
    )
    unread = tuple(name for name in table.columns if name not in ours)
    return Rows(frame, table.counted_in, table.unusable, unread)


def columns_of(path: Path) -> tuple[str, ...]:
    """The names of a table's columns, by its beginning alone; none if it cannot be read."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            from pyarrow.parquet import read_schema

            return tuple(read_schema(path).names)
        with opened_text(path, TableFormat()) as lines:
            first = lines.readline()
        if suffix in (".csv", ".tsv"):
            headers = [next(csv.reader([first], delimiter=one), []) for one in SEPARATORS]
            return tuple(visible(name) for name in max(headers, key=len))
        row = read_json(first)
        return tuple(row) if isinstance(row, dict) else ()
    except (DataError, OSError, ValueError, csv.Error):  # pyarrow's are ValueErrors
        return ()


def _read_parquet(
    path: Path, required: Sequence[str], optional: Sequence[str], form: TableFormat
) -> Table:
    """By Arrow: a damaged file panics in Polars, or aborts the process."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path, page_checksum_verification=True) as file:
            columns = tuple(file.schema_arrow.names)
            check_columns(path, columns, required, optional, form)
            wanted = [name for name in (*required, *optional) if name in columns]
            check_once(path, columns, wanted)
            table, told = file.read(wanted), file.metadata.num_rows
        table.validate(full=True)  # its texts, among others, are UTF-8
        rows = pl.DataFrame(pl.from_arrow(table)).select(wanted)
    except (ArrowException, UnicodeError, pl.exceptions.PanicException) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from error
    if rows.height != told:
        raise DataError(
            f"{path} is damaged: it says that it has {told} rows, and has {rows.height}"
        )
    places = pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias(PLACE)
    return Table(columns, rows.select(places, pl.all()), "row")


def _text(path: Path, table: Table, name: str) -> pl.Series:
    values = table.rows[name]
    if values.dtype.is_integer() or isinstance(values.dtype, pl.Categorical | pl.Enum):
        values = values.cast(pl.String)
    if values.dtype not in (pl.String, pl.Null):
        raise DataError(
            f"column {name!r} of {path} must be text, not {values.dtype}: write its values as text"
        )
    values = values.cast(pl.String)
    blank = values.fill_null("").str.strip_chars() == ""
    if blank.any():
        place = table.rows[PLACE].filter(blank)[0]
        raise DataError(
            f"column {name!r} of {path} is blank in {blank.sum()} of {len(values)} rows, "
            f"first in {table.counted_in} {place}: fill it in or leave these rows out"
        )
    null = values.str.contains("\0", literal=True)
    if null.any():
        place = table.rows[PLACE].filter(null)[0]
        raise DataError(
            f"column {name!r} of {path} has a null character in {table.counted_in} {place}: "
            "remove it"
        )
    return values


def _captions(path: Path, values: pl.Series) -> pl.Series:
    if isinstance(values.dtype, pl.Array):
        values = values.arr.to_list()
    if isinstance(values.dtype, pl.List):
        known = isinstance(values.dtype.inner, pl.String | pl.Null | pl.Categorical | pl.Enum)
        texts = pl.col(values.name).cast(pl.List(pl.String)).fill_null([])
    else:
        known = isinstance(values.dtype, pl.String | pl.Null | pl.Categorical | pl.Enum)
        texts = pl.concat_list(pl.col(values.name).cast(pl.String))
    if not known:
        raise DataError(
            f"column {values.name!r} of {path} must be text or a list of texts, not {values.dtype}"
        )
    is_said = pl.element().str.strip_chars() != ""
    return values.to_frame().select(texts.list.eval(pl.element().filter(is_said))).to_series()
