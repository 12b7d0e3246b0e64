"""Tables that name images and tell about them: Parquet, CSV or JSON lines, read into one form.

Only the columns asked for are read; every one is text, but for `caption`, which becomes a list of
captions. What the images are, and whether they exist, is not looked at here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fomo_dagster.errors import DataError, InputError, nearest

SUFFIXES = (".parquet", ".csv", ".jsonl", ".ndjson")


def read_rows(path: Path, required: Sequence[str], optional: Sequence[str]) -> pl.DataFrame:
    """The rows of a table: columns `required`, and of `optional` those that it has.

    `caption` (text or a list) becomes List(String) without blank captions; whole numbers become
    text. Raises `InputError` where there is no such table and `DataError` where it does not hold
    what it should: a column missing or of another type, a blank value in a column of text.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} is not a table: expected a file {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    wanted = [*required, *optional]
    try:
        if path.suffix.lower() == ".parquet":
            rows = pl.read_parquet(path)
        elif path.suffix.lower() == ".csv":
            rows = pl.read_csv(path, infer_schema=False)  # all text: class 007 stays 007
        else:
            rows = _read_json_lines(path, wanted)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from error
    _check_columns(path, rows.columns, required, optional)
    rows = rows.select(
        _captions(path, rows[name]) if name == "caption" else _text(path, rows[name])
        for name in wanted
        if name in rows.columns
    )
    if rows.is_empty():
        raise DataError(f"{path} has no rows")
    return rows


def _check_columns(
    path: Path, columns: Sequence[str], required: Sequence[str], optional: Sequence[str]
) -> None:
    for name in required:
        if name not in columns:
            raise DataError(
                f"{path} has no column {name!r}; its columns: {', '.join(columns)}; "
                f"for {name!r}, {nearest(name, columns)}"
            )
    for name in optional:
        meant = [c for c in columns if c.lower().rstrip("s") == name and name not in columns]
        if meant:
            raise DataError(
                f"{path} has a column {meant[0]!r}, which would be ignored: rename it to {name!r}"
            )


def _text(path: Path, values: pl.Series) -> pl.Series:
    if values.dtype.is_integer() or isinstance(values.dtype, pl.Categorical | pl.Enum):
        values = values.cast(pl.String)
    if values.dtype not in (pl.String, pl.Null):
        raise DataError(f"column {values.name!r} of {path} must be text, not {values.dtype}")
    values = values.cast(pl.String)
    blank = values.fill_null("").str.strip_chars() == ""
    if blank.any():
        raise DataError(
            f"column {values.name!r} of {path} is blank in {blank.sum()} of {len(values)} rows, "
            f"first in row {blank.arg_true()[0] + 1}: fill it in or leave these rows out"
        )
    return values


def _captions(path: Path, values: pl.Series) -> pl.Series:
    if values.dtype in (pl.String, pl.Null):
        texts = pl.concat_list(pl.col(values.name).cast(pl.String))
    elif values.dtype in (pl.List(pl.String), pl.List(pl.Null)):
        texts = pl.col(values.name).cast(pl.List(pl.String)).fill_null([])
    else:
        raise DataError(
            f"column {values.name!r} of {path} must be text or a list of texts, not {values.dtype}"
        )
    is_said = pl.element().str.strip_chars() != ""
    return values.to_frame().select(texts.list.eval(pl.element().filter(is_said))).to_series()


def _read_json_lines(path: Path, wanted: Sequence[str]) -> pl.DataFrame:
    """The wanted columns, and the names of the others; captions may be texts and lists mixed."""
    columns: dict[str, list[Any]] = {}
    count = 0
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"line {number} of {path} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"line {number} of {path} must be an object, not {line.strip()!r}")
            for name, value in row.items():
                cells = columns.setdefault(name, [])
                if name in wanted:
                    cells.extend([None] * (count - len(cells)))
                    cells.append(_json_value(name, value, f"in line {number} of {path}"))
            count += 1
    return pl.DataFrame(
        [
            pl.Series(
                name,
                cells + [None] * (count - len(cells)),
                pl.List(pl.String) if name == "caption" else pl.String,
            )
            for name, cells in columns.items()
        ]
    )


def _json_value(name: str, value: Any, place: str) -> str | list[str] | None:
    """A cell as text, or as the list of texts that a caption is."""
    if value is None or isinstance(value, str):
        return [value] if name == "caption" and value is not None else value
    if name == "caption":
        if isinstance(value, list) and all(isinstance(text, str) for text in value):
            return value
        raise DataError(f"{name!r} {place} must be text or a list of texts, not {value!r}")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{name!r} {place} must be text, not {value!r}")
