"""What the readers of tables share: what they return, and how text files are opened."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, NamedTuple, TypeAlias, get_args

import polars as pl
from pydantic import field_validator

from fomo_dagster.data.declarations import Declaration, at_default_left_out
from fomo_dagster.errors import DataError
from fomo_dagster.texts import visible

PLACE = "\0place"  # the column that says where a row stands; no table has one of this name

Column: TypeAlias = Literal["path", "concept", "caption", "split", "key"]
BYTE_ORDER_MARKS = (  # UTF-32's first: UTF-16's begin them
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class TableFormat(Declaration):
    """How a text table is written, if not in the usual way."""

    quoting: Literal["doubled", "backslash", "none"] | None = at_default_left_out(
        None,
        description="How a CSV table writes quotes inside quoted texts. doubled: as usual. "
        "backslash: as Spark and MySQL do. none: quotes are ordinary letters. null: "
        "doubled, and an ambiguous table is refused.",
    )
    separator: str | None = at_default_left_out(
        None,
        min_length=1,
        max_length=1,
        description="What separates the fields of a CSV table; null: the comma, semicolon, tab or "
        "bar in its header.",
    )
    encoding: str = at_default_left_out(
        "utf-8", description="Encoding of a CSV table, or of JSON lines, without a byte order mark."
    )
    columns: dict[Column, str] = at_default_left_out(
        {}, description="The table's own names of columns: `{path: file_name, caption: text}`."
    )

    def column(self, name: str) -> str:
        """What the table calls our column `name`."""
        return next((theirs for ours, theirs in self.columns.items() if ours == name), name)

    @field_validator("separator")
    @classmethod
    def _separates(cls, separator: str | None) -> str | None:
        if separator is not None and (separator in '"\\\r\n\0' or not separator.isascii()):
            raise ValueError("it must be of ASCII, and no quote, backslash or line end")
        return separator

    @field_validator("columns")
    @classmethod
    def _are_distinct(cls, columns: dict[Column, str]) -> dict[Column, str]:
        names = {ours: ours for ours in get_args(Column)} | columns
        for ours, theirs in columns.items():
            others = [other for other in names if other != ours and names[other] == theirs]
            if others:
                raise ValueError(f"column {theirs!r} cannot be both {ours} and {others[0]}")
        return columns

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
        except LookupError as error:
            raise ValueError(f"{error}; usual are utf-8, utf-16, latin-1 and cp1252") from error
        return encoding


class Table(NamedTuple):
    """A table as read. columns: the names of all it has. rows: `PLACE` and those that were wanted.

    counted_in: what `PLACE` counts, from 1: lines of a text file, rows of others. unusable: places
    of rows that cannot be used, with the path where it is known, and why.
    """

    columns: tuple[str, ...]
    rows: pl.DataFrame
    counted_in: str
    unusable: tuple[tuple[int, str | None, str], ...] = ()


def check_columns(
    path: Path,
    columns: Sequence[str],
    required: Sequence[str],
    optional: Sequence[str],
    form: TableFormat,
) -> None:
    """Refuse a table without a column that is `required`, or with one that looks like another.

    Names are the table's own.
    """
    if not columns:
        raise DataError(f"{path} is empty: a table begins with the names of its columns")
    for name in required:
        if name not in columns:
            declared = [ours for ours, theirs in form.columns.items() if theirs == name]
            there = f"its columns: {', '.join(columns)}"
            if declared:
                raise DataError(
                    f"{path} has no column {name!r}, which `columns` declares as its "
                    f"{declared[0]}; {there}"
                )
            raise DataError(
                f"{path} has no column {name!r}; {there}; rename the one that is meant to "
                f"{name!r}, or declare `columns: {{{name}: …}}`"
            )
    for name in optional:
        alike = (c for c in columns if visible(c).lower().rstrip("s") == name)
        meant = [c for c in alike if name not in columns]
        if meant:
            raise DataError(
                f"{path} has a column {meant[0]!r}, which would be ignored: rename it to "
                f"{name!r}, or declare `columns: {{{name}: {meant[0]}}}`"
            )


def check_once(path: Path, columns: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse a table that has a column that is `wanted` twice."""
    twice = [name for name in wanted if columns.count(name) > 1]
    if twice:
        raise DataError(f"{path} has two columns {twice[0]!r}: remove or rename one")


@contextmanager
def opened_text(path: Path, form: TableFormat) -> Iterator[IO[str]]:
    """The file as text whose lines keep their ends. A byte order mark tells its encoding.

    Raises `DataError`, with the line if it can be told, for bytes of another encoding.
    """
    with path.open("rb") as file:
        encoding = encoding_of(file.read(4), form)
    try:
        with path.open(encoding=encoding, newline="") as text:
            yield text
    except UnicodeError as error:
        raise DataError(
            f"{_undecodable_line(path, encoding)}{path} is not {encoding}: {error}. Declare its "
            "`encoding`, such as cp1252 or utf-16"
        ) from error


def encoding_of(start: bytes, form: TableFormat) -> str:
    """That of a text that starts so: its byte order mark's, or else the declared one."""
    marked = (encoding for mark, encoding in BYTE_ORDER_MARKS if start.startswith(mark))
    return next(marked, form.encoding)


def _undecodable_line(path: Path, encoding: str) -> str:
    if encoding not in ("utf-8", "utf-8-sig"):
        return ""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return f"line {number} of "
    return ""
