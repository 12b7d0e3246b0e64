"""JSON lines: one object per row. A row with invalid text is left out and named with its line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import polars as pl

from fomo_dagster.data.sources.tables import PLACE, Table, TableFormat, check_columns, opened_text
from fomo_dagster.errors import DataError
from fomo_dagster.texts import is_text, read_json


def read_json_lines(
    path: Path, required: Sequence[str], optional: Sequence[str], form: TableFormat
) -> Table:
    """The columns `required`, and of `optional` those that any row has, by the table's own names,
    as text; that of captions as a list of texts.

    Whole numbers are taken as texts. Raises `DataError`, with its line, for what is no JSON object,
    has a key twice, or holds something else than text.
    """
    wanted = [*required, *optional]
    path_column, caption_column = form.column("path"), form.column("caption")
    columns: dict[str, None] = {}
    places: list[int] = []
    cells: dict[str, list[Any]] = {name: [] for name in wanted}
    unusable = []
    with opened_text(path, form) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"line {number} of {path}"
            row = _row(line, where)
            columns.update(dict.fromkeys(row))
            values = {
                name: _value(name, row.get(name), where, several=name == caption_column)
                for name in wanted
            }
            spoiled = [name for name, value in values.items() if not _is_whole(value)]
            if spoiled:
                named = values.get(path_column)
                why = f"half a character (a lone surrogate) in {spoiled[0]!r} in {where}"
                unusable.append((number, named if isinstance(named, str) else None, why))
                continue
            places.append(number)
            for name, value in values.items():
                cells[name].append(value)
    check_columns(path, tuple(columns), required, optional, form)
    present = [name for name in wanted if name in columns]
    types = {
        name: pl.List(pl.String) if name == caption_column else pl.String() for name in present
    }
    rows = pl.DataFrame(
        {PLACE: places, **{name: cells[name] for name in present}},
        schema={PLACE: pl.Int64(), **types},
    )
    return Table(tuple(columns), rows, "line", tuple(unusable))


def _row(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = read_json(line)
    except ValueError as error:
        said = f"{error.msg}, at {error.colno}" if isinstance(error, JSONDecodeError) else error
        raise DataError(f"{where} is not JSON: {said}") from error
    if not isinstance(row, dict):
        whole = " (all rows in one list: write one a line)" if isinstance(row, list) else ""
        raise DataError(f"{where} must be an object, not {line.strip()[:60]!r}{whole}")
    return row


def _value(name: str, value: Any, where: str, *, several: bool) -> str | list[str] | None:
    """A cell as text, or as the list of texts that a caption is (`several`)."""
    if value is None or isinstance(value, str):
        return [value] if several and value is not None else value
    if several:
        if isinstance(value, list) and all(isinstance(text, str) for text in value):
            return value
        raise DataError(f"{name!r} in {where} must be text or a list of texts, not {value!r}")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{name!r} in {where} must be text, not {value!r}")


def _is_whole(value: str | list[str] | None) -> bool:
    texts = value if isinstance(value, list) else [value]
    return all(text is None or is_text(text) for text in texts)
