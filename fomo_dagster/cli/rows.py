"""Rows on a terminal: as a table where it fits, else as records or with folded names.

Without a terminal a row is a line, however wide, so that `grep` and `awk` find whole rows.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any, Literal, TypeAlias

import polars as pl
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from fomo_dagster.cli.output import Terminal, cell, line, whole_cell

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
    table = _table(frame, None, DIGITS, numbers)
    if layout == "table" or (layout == "auto" and _fits(table, console)):
        print_whole(table, console)
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
    build = partial(_table, frame, title, numbers=numbers)
    table = build()
    if not _fits(table, console):
        table = build(split=True)
    if not has_edge(console):  # measuring takes as long as printing
        print_whole(table, console)
        return
    excess = _natural(table, console) - console.width
    if excess > 0 and narrow in frame.columns:
        names = frame[narrow].to_list()
        longest = max(cell_len(cell(name).plain) for name in [narrow, *names])
        table = build(split=True, fold=(narrow, max(LEAST_NAME, longest - excess)))
    print_whole(table, console)


def _table(
    frame: pl.DataFrame,
    title: str | None,
    fractions: str = ".2f",
    numbers: Collection[str] = (),
    *,
    split: bool = False,
    fold: tuple[str, int] | None = None,
) -> Table:
    """split: headings have a line for each word. fold: a column and the width of its values."""
    table = Table(
        title=None if title is None else line(title), title_justify="left", title_style="bold",
        header_style="bold", box=None,
    )  # fmt: skip
    lines = max((len(name.split()) for name in frame.columns), default=1) if split else 1
    for name, dtype in frame.schema.items():
        right = dtype.is_numeric() or name in numbers
        words = cell(name).plain.split() if split else [cell(name).plain]
        heading = Text("\n" * (lines - len(words)) + "\n".join(words))
        folded = fold is not None and name == fold[0]
        table.add_column(
            heading,
            justify="right" if right else "left",
            no_wrap=not folded,
            overflow="fold",
            max_width=fold[1] if fold is not None and folded else None,
        )
    for row in frame.rows():
        table.add_row(*(cell(_written(value, fractions)) for value in row))
    return table


def _print_records(frame: pl.DataFrame, console: Console) -> None:
    """A line for each value, below the number of its row; a terminal folds long ones."""
    if frame.is_empty():
        console.print(line(f"no rows of {', '.join(frame.columns)}"))
    names = [cell(name).plain for name in frame.columns]
    width = max(map(cell_len, names), default=0)
    room = max(LEAST_VALUE, console.width - width - 2)
    for number, row in enumerate(frame.rows(), 1):
        console.print(line((f"row {number}", "bold")))
        for name, value in zip(names, row, strict=True):
            text = whole_cell(_written(value, DIGITS))
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


def _fits(table: Table, console: Console) -> bool:
    return not has_edge(console) or _natural(table, console) <= console.width


def _natural(table: Table, console: Console) -> int:
    return Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum


def has_edge(console: Console) -> bool:
    """Whether it is a terminal. `FORCE_COLOR` gives a pipe colours, and no edge."""
    return console.file.isatty()


def _written(value: Any, fractions: str) -> Any:
    return f"{value:{fractions}}" if isinstance(value, float) else value
