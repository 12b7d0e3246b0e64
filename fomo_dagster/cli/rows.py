"""Rows on a terminal: as a table where it fits, else as records or with folded names.

Without a terminal a row is a line, however wide, so that `grep` and `awk` find whole rows.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import polars as pl
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from fomo_dagster.cli.output import Terminal, cell_text, line, whole_cell

Layout: TypeAlias = Literal["auto", "table", "records"]
WIDEST = 100_000  # characters of a line
LEAST_NAME = 12  # characters that a folded name keeps
LEAST_VALUE = 20  # characters of a record's value on a line
DIGITS = ".6g"  # of numbers of any size, as learning rates are


def print_rows(
    frame: pl.DataFrame,
    layout: Layout = "auto",
    numbers: Collection[str] = (),
    console: Console | None = None,
) -> None:
    """The rows of a query; numbers to six digits.

    layout: `auto` is a table, or records where a terminal is too narrow for it. A table that is
    asked for goes past the edge. numbers: columns that hold numbers as texts.
    """
    console = console or Terminal()
    rows = _Rows.of(frame, None, DIGITS, numbers)
    if layout == "table" or (layout == "auto" and rows.fit(console)):
        rows.print(console)
    else:
        _print_records(frame, console)


def print_frame(
    frame: pl.DataFrame,
    title: str | None = None,
    console: Console | None = None,
    numbers: Collection[str] = (),
    narrow: str = "experiment",
) -> None:
    """A table with a title; fractions to two places. numbers: as in `print_rows`.

    Where a terminal is too narrow for it, headings take several lines, and then the names in the
    column `narrow` do. What is still too wide goes past the edge rather than broken within numbers.
    """
    console = console or Terminal()
    rows = _Rows.of(frame, title, ".2f", numbers)
    if not rows.fit(console):
        rows = replace(rows, is_split=True)
    excess = rows.width - console.width if has_edge(console) else 0
    if excess > 0 and narrow in frame.columns:
        place = frame.columns.index(narrow)
        least = max(LEAST_NAME, cell_len(cell_text(narrow)), rows.widths[place])
        print_whole(rows.as_table(fold=(place, max(LEAST_NAME, least - excess))), console)
    else:
        rows.print(console)


@dataclass(frozen=True)
class _Rows:
    """A frame in letters, each value on one line.

    right: whether a column stands at its right edge. widths: of the columns' values. is_split:
    whether headings have a line for each word.
    """

    title: str | None
    names: list[str]
    right: list[bool]
    texts: list[list[str]]
    widths: list[int]
    is_split: bool = False

    @classmethod
    def of(
        cls, frame: pl.DataFrame, title: str | None, fractions: str, numbers: Collection[str]
    ) -> _Rows:
        """fractions: the form of floats. numbers: columns that hold numbers as texts."""
        texts = [[cell_text(_written(one, fractions)) for one in row] for row in frame.iter_rows()]
        return cls(
            title,
            [cell_text(name) for name in frame.columns],
            [dtype.is_numeric() or name in numbers for name, dtype in frame.schema.items()],
            texts,
            [max(map(cell_len, column)) for column in zip(*texts, strict=True)]
            or [0] * frame.width,
        )

    @property
    def headings(self) -> list[str]:
        """The columns' names, over the same number of lines."""
        words = [name.split() if self.is_split else [name] for name in self.names]
        lines = max(map(len, words), default=1)
        return ["\n" * (lines - len(one)) + "\n".join(one) for one in words]

    @property
    def columns(self) -> list[int]:
        """The width of each column, without the gaps beside it."""
        headings = (max(map(cell_len, one.split("\n"))) for one in self.headings)
        return [max(pair) for pair in zip(headings, self.widths, strict=True)]

    @property
    def width(self) -> int:
        """Of all of it."""
        return sum(width + 2 for width in self.columns)

    def fit(self, console: Console) -> bool:
        """Whether a row is a line of the console."""
        return not has_edge(console) or self.width <= console.width

    def print(self, console: Console) -> None:
        """Print them, however wide they are: Rich lays out the head alone, as it takes a hundred
        times as long for a row as its letters do."""
        if self.width > WIDEST:
            print_whole(self.as_table(), console)
            return
        columns = self.columns
        print_whole(replace(self, texts=[], widths=columns).as_table(), console)
        layout = list(zip(self.right, columns, strict=True))
        lines = [
            "".join(
                f" {_filling(text.rstrip(), width)}{text.rstrip()} " if right
                else f" {text}{_filling(text, width)} "
                for text, (right, width) in zip(row, layout, strict=True)
            )
            for row in self.texts
        ]  # fmt: skip
        if lines:
            console.print(Segments([Segment("\n".join(lines) + "\n")]), crop=False, end="")

    def as_table(self, fold: tuple[int, int] | None = None) -> Table:
        """Rich's form of them. fold: the place of a column and the width of its values."""
        table = Table(
            title=None if self.title is None else line(self.title), title_justify="left",
            title_style="bold", header_style="bold", box=None,
        )  # fmt: skip
        for place, (heading, width) in enumerate(zip(self.headings, self.widths, strict=True)):
            folded = fold is not None and place == fold[0]
            table.add_column(
                Text(heading),
                justify="right" if self.right[place] else "left",
                no_wrap=not folded,
                overflow="fold",
                min_width=None if folded else width,
                max_width=fold[1] if fold is not None and folded else None,
            )
        for row in self.texts:
            table.add_row(*map(Text, row))
        return table


def _filling(text: str, width: int) -> str:
    return " " * (width - cell_len(text))


def _print_records(frame: pl.DataFrame, console: Console) -> None:
    """A line for each value, below the number of its row; a terminal folds long ones."""
    if frame.is_empty():
        console.print(line(f"no rows of {', '.join(frame.columns)}"))
    names = [cell_text(name) for name in frame.columns]
    width = max(map(cell_len, names), default=0)
    room = max(LEAST_VALUE, console.width - width - 2)
    for number, row in enumerate(frame.rows(), 1):
        console.print(line((f"row {number}", "bold")))
        for name, value in zip(names, row, strict=True):
            text = Text(whole_cell(_written(value, DIGITS)))
            folded = text.wrap(console, room, overflow="fold") if has_edge(console) else [text]
            for place, piece in enumerate(folded or [text]):
                label = name if place == 0 else ""
                padding = " " * (width - cell_len(label) + 2)
                console.print(Text.assemble(label, padding, piece), soft_wrap=True)


def print_table(table: Table, console: Console) -> None:
    """Print a table in a terminal's width; elsewhere a row is a line."""
    if has_edge(console):
        console.print(table)
    else:
        print_whole(table, console)


def print_whole(table: Table, console: Console) -> None:
    """Print a table as wide as it is."""
    room = console.width
    console.width = max(room, _natural(table, console))
    try:
        console.print(table, crop=False)
    finally:
        console.width = room


def _natural(table: Table, console: Console) -> int:
    return Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum


def has_edge(console: Console) -> bool:
    """Whether it is a terminal. `FORCE_COLOR` gives a pipe colours, and no edge."""
    return console.file.isatty()


def _written(value: Any, fractions: str) -> Any:
    return f"{value:{fractions}}" if isinstance(value, float) else value
