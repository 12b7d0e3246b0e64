"""CSV tables: every record is read as it was meant, or the table is refused with its line.

Records are those of Python's strict `csv`: a quote that closes nothing, a text that never ends and
a row of another length are errors. A stray quote can also swallow lines and leave something
well-formed; then the lines themselves show that they were records (`_doubt`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import polars as pl

from fomo_dagster.data.formats import has_image_suffix
from fomo_dagster.data.sources.tables import (
    PLACE,
    Table,
    TableFormat,
    check_columns,
    check_once,
    opened_text,
)
from fomo_dagster.errors import DataError
from fomo_dagster.texts import visible

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
EXCEL = re.compile(r"sep=(.)\s*")  # a first line that tells Excel the separator
ROWS_AT_ONCE = 1 << 16  # that are held as Python's texts
STAND_IN = 0xDC00  # added to an escaped character: no decoded text has such characters
ESCAPED_QUOTE = '\\"'
ESCAPED_ENDS = tuple(chr(STAND_IN + ord(end)) for end in "\r\n")
NULL = r"\N"  # MySQL's, where backslashes escape

NOT_DOUBLED = "none where quotes are letters, backslash where those escape them"

csv.field_size_limit(1 << 30)  # Python's own limit, 128 KiB, is less than some captions


def read_csv(
    path: Path, required: Sequence[str], optional: Sequence[str], form: TableFormat
) -> Table:
    """The columns `required`, and of `optional` those that the table has, as text.

    Names are the table's own. By `required` the separator is known where `form` does not say it.
    Raises `DataError`, with the line if it begins, for what cannot be read in one way only.
    """
    separator, skipped = _separator(path, form, required)
    with opened_text(path, form) as file:
        lines = _Lines(path, file, form, separator)
        for _ in range(skipped):
            next(lines)
        records = _records(lines)
        _, header = next(records, (0, []))
        columns = tuple(map(visible, header))
        check_columns(path, columns, required, optional, form)
        lines.columns = columns
        wanted = [name for name in (*required, *optional) if name in columns]
        check_once(path, columns, wanted)
        places = [columns.index(name) for name in wanted]
        schema = {PLACE: pl.Int64, **dict.fromkeys(wanted, pl.String)}
        parts = [pl.DataFrame(schema=schema)]
        rows = []
        for line, fields in records:
            rows.append((line, *[fields[place] for place in places]))
            if len(rows) == ROWS_AT_ONCE:
                parts.append(pl.DataFrame(rows, schema=schema, orient="row"))
                rows = []
        parts.append(pl.DataFrame(rows, schema=schema, orient="row"))
    return Table(columns, pl.concat(parts), "line")


class _Lines:
    """The lines of an open file, counted; those since `record_ends` as they stand in the file.

    Where backslashes escape, each escaped character is given as its stand-in, which means nothing
    to `csv`.
    """

    def __init__(self, path: Path, file: IO[str], form: TableFormat, separator: str) -> None:
        self.path, self.form, self.separator = path, form, separator
        self.columns: tuple[str, ...] = ()
        self.record: list[str] = []
        self._file = file
        self._count = 0
        escaped = re.escape(f'"\\\r\n{separator}')
        self._escape = re.compile(rf"\\([{escaped}])")

    @property
    def record_begins(self) -> int:
        """The number of the line, from 1, that the present record begins in."""
        return self._count - len(self.record) + 1

    def record_ends(self) -> None:
        self.record = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._read()
        if not line:
            raise StopIteration
        if self.form.quoting == "backslash":
            line = self._escaped(line)
            # `csv` would take the end of what it is given for the record's.
            while line.endswith(ESCAPED_ENDS) and (more := self._read()):
                line += self._escaped(more)
        return line

    def _read(self) -> str:
        """The next line as it stands; empty after the last."""
        line = next(self._file, "")
        if not line:
            return line
        self._count += 1
        self.record.append(line)
        if "\0" in line:
            raise DataError(
                f"line {self._count} of {self.path} has a NUL byte: remove it or, where the table "
                "is in another encoding, declare its `encoding`, such as utf-16"
            )
        return line

    def _escaped(self, line: str) -> str:
        return self._escape.sub(lambda match: chr(STAND_IN + ord(match[1])), line)


def _records(lines: _Lines) -> Iterator[tuple[int, list[str]]]:
    """(line where it begins, fields) of each record, the header being the first."""
    quoting = lines.form.quoting
    reader = csv.reader(
        lines,
        delimiter=lines.separator,
        quoting=csv.QUOTE_NONE if quoting == "none" else csv.QUOTE_MINIMAL,
        strict=True,
    )
    while True:
        lines.record_ends()
        try:
            fields = next(reader, None)
        except csv.Error as error:
            never_ends = "end of data" in str(error)
            what = "a quoted text that never ends" if never_ends else "text after a closing quote"
            raise _refusal(lines, f"has {what}", NOT_DOUBLED) from error
        if fields is None:
            return
        if len(fields) < 2 and not "".join(fields).strip():
            continue  # a blank line
        if lines.columns and len(fields) != len(lines.columns):
            raise _refusal(
                lines,
                f"has {len(fields)} fields, and its header {len(lines.columns)} "
                f"(separated by {SEPARATORS.get(lines.separator, repr(lines.separator))})",
            )
        if quoting is None and (doubt := _doubt(lines, fields)) is not None:
            raise _refusal(lines, doubt, f"doubled where it is as it should be; {NOT_DOUBLED}")
        if quoting == "backslash":
            fields = _unescaped(lines, fields)
        yield lines.record_begins, fields


def _doubt(lines: _Lines, fields: Sequence[str]) -> str | None:
    """Why a record that is well-formed under doubled quotes may have been meant otherwise."""
    escaped = any(ESCAPED_QUOTE in line for line in lines.record)
    if len(lines.record) > 1 and (escaped or _swallows_records(lines, fields)):
        return f"has a text of several lines, {len(lines.record)} in all, that may be records"
    # A quoted text has `\"` only where its quote is doubled.
    doubled = any(ESCAPED_QUOTE + '"' in line for line in lines.record)
    if escaped and not doubled and any(ESCAPED_QUOTE in field for field in fields):
        return "has a backslash before a quote"
    if NULL in fields:
        return f"has a field {NULL}, which databases write for a missing value"
    after_blank = [field for field in fields if field[:1].isspace() and field.lstrip()[:1] == '"']
    if after_blank:
        whole = lines.separator + "".join(lines.record)
        if any(lines.separator + field in whole for field in after_blank):  # so it is not quoted
            return "has a quote after a blank, where it is a letter"
    return None


def _swallows_records(lines: _Lines, fields: Sequence[str]) -> bool:
    """Whether a line that is part of a quoted text has an image's path where records have it.

    Where the record's own path does not end as images do, any line with as many fields is one.
    """
    broken = [number for number, field in enumerate(fields) if "\n" in field or "\r" in field]
    path = lines.form.column("path")
    if path not in lines.columns or not broken:
        return False
    place, count = lines.columns.index(path), len(lines.columns)
    inner = lines.record[1:-1]
    if place <= broken[0]:  # the record's own path is in its first line
        inner = lines.record[1:]
    elif place >= broken[-1]:
        inner = lines.record[:-1]
    from_left = place if place <= broken[0] else place - count
    rows = [line.strip("\r\n").split(lines.separator) for line in inner]
    if not has_image_suffix(fields[place]):
        return any(len(row) == count for row in rows)
    return any(len(row) >= count and has_image_suffix(row[from_left].strip(' "')) for row in rows)


def _unescaped(lines: _Lines, fields: Sequence[str]) -> list[str]:
    """The fields with characters for their stand-ins, and nothing for `NULL`."""
    if any('"' in field for field in fields):
        raise _refusal(lines, "has a quote inside a text that no backslash escapes")
    return [
        "".join(chr(ord(c) - STAND_IN) if STAND_IN <= ord(c) < STAND_IN + 128 else c for c in field)
        if not field.isascii()
        else ("" if field == NULL else field)
        for field in fields
    ]


def _refusal(lines: _Lines, what: str, readings: str = "") -> DataError:
    """The error for the present record. readings: other values of `quoting` that may be right."""
    quoting, escaped = lines.form.quoting, f"\\{lines.separator}"
    if quoting is not None:
        hint = f"correct it, or declare another `quoting` than {quoting}"
    elif any(mark in line for line in lines.record for mark in (ESCAPED_QUOTE, escaped)):
        hint = "it looks escaped by backslashes: declare `quoting: backslash`"
    elif readings:
        hint = f"declare its `quoting` ({readings}), or correct the line"
    else:
        hint = "quote texts that hold the separator, or declare another `separator`"
    return DataError(f"the record in line {lines.record_begins} of {lines.path} {what}: {hint}")


def _separator(path: Path, form: TableFormat, required: Sequence[str]) -> tuple[str, int]:
    """What separates the fields, and how many lines stand before the header."""
    with opened_text(path, form) as file:
        first = file.readline().lstrip("\ufeff")
    told = EXCEL.fullmatch(first)
    if form.separator is not None:
        return form.separator, int(told is not None)
    if told is not None:
        return told[1], 1
    if path.suffix.lower() == ".tsv":
        return "\t", 0
    headers = {
        separator: [name.strip(' "\r\n') for name in first.split(separator)]
        for separator in SEPARATORS
    }
    fitting = [s for s, header in headers.items() if set(required) <= set(header)]
    if len(fitting) > 1 and any(len(headers[s]) > 1 for s in fitting):
        named = " or ".join(SEPARATORS[s] for s in fitting)
        raise DataError(f"{path} may be separated by {named}: declare its `separator`")
    return (fitting or [","])[0], 0
