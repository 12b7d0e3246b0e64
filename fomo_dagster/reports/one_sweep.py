"""What people read of a report about methods of one sweep: its name, with which all of theirs
begin, is said once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

import polars as pl
from matplotlib.figure import Figure as Drawing
from matplotlib.text import Text

from fomo_dagster.reports.content import Block, Figure, Fold, Pictures, Report, Section, Table

Rewrite: TypeAlias = Callable[[str], str]
B = TypeVar("B", bound=Block)


def without_name_of(sweep: str, names: Sequence[str], report: Report) -> Report:
    """The report with `names`, of methods and experiments, as they are within their sweep. Data,
    the names of files and what makes them again keep the whole names. Its drawings are changed
    themselves."""
    start = f"{sweep}_"
    longest_first = sorted(names, key=len, reverse=True)
    known = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")

    def rewrite(text: str) -> str:
        return known.sub(lambda found: found[0].removeprefix(start), text)

    sections = [
        Section(one.name, rewrite(one.title), [_rewritten(block, rewrite) for block in one.blocks])
        for one in report.sections
    ]
    remarks = [*map(rewrite, report.remarks), f"The names of all methods begin with {start}."]
    return replace(report, title=rewrite(report.title), remarks=remarks, sections=sections)


def _rewritten(block: B, rewrite: Rewrite) -> B:
    found: Block
    match block:
        case str():
            found = rewrite(block)
        case tuple():
            found = tuple(map(rewrite, block))
        case Fold():
            found = Fold(rewrite(block.title), [_rewritten(one, rewrite) for one in block.blocks])
        case Table():
            found = _table(block, rewrite)
        case Figure():
            _redraw(block.drawing, rewrite)
            found = replace(block, caption=rewrite(block.caption))
        case Pictures():
            found = replace(block, caption=rewrite(block.caption))
    return found  # type: ignore[return-value]


def _table(table: Table, rewrite: Rewrite) -> Table:
    shown = table.shown.with_columns(pl.col(pl.String).map_elements(rewrite, pl.String))
    headings = {name: rewrite(name) for name in shown.columns}
    if len({*headings.values()}) < len(headings):  # a method is called as another column is
        headings = {name: name for name in shown.columns}
    return replace(
        table, caption=rewrite(table.caption), shown=shown.rename(headings),
        numbers=[headings[name] for name in table.numbers if name in headings],
        best={headings[name]: rows for name, rows in table.best.items()},
    )  # fmt: skip


def _redraw(drawing: Drawing, rewrite: Rewrite) -> None:
    for text in drawing.findobj(Text):
        text.set_text(rewrite(text.get_text()))
    for axes in drawing.axes:
        for axis in (axes.xaxis, axes.yaxis):  # which write their labels whenever they are drawn
            labels = [label.get_text() for label in axis.get_majorticklabels()]
            if (rewritten := list(map(rewrite, labels))) != labels:
                axis.set_ticks(axis.get_majorticklocs(), rewritten)
