"""Bars of work that goes on, on a terminal; nothing without one."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from fomo_dagster.cli.output import printable

BAR = 20  # characters: with counts, loss and speed, a bar fits 80 columns
LONGEST_WORK = 24  # characters of what is done
LEAST_OF_NAME = 8  # characters of an experiment's name, where it is cut


class Bars:
    """A bar for each kind of work, below a line that says what it is for.

    assets: how many there are to be; 0 where none is made, as in a plan.
    """

    def __init__(self, console: Console, assets: int = 0) -> None:
        self._progress = _Display(
            TextColumn("{task.description}", markup=False, table_column=_column()),
            BarColumn(bar_width=BAR),
            TextColumn("{task.completed:,}/{task.total:,}", markup=False, table_column=_column()),
            TextColumn("{task.fields[detail]}", markup=False, table_column=_column(ratio=1)),
            TimeRemainingColumn(table_column=_column()),
            console=console,
            transient=True,
            expand=True,
            disable=not console.is_interactive,  # it would end with an empty line
        )
        self._assets = self._progress.add_task(
            "assets", total=assets, detail="", visible=assets > 0
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Progress within an asset; see `fomo_dagster.progress`."""
        detail = printable(detail)
        if what not in self._tasks:
            shown = shortened(printable(what), LONGEST_WORK)
            self._tasks[what] = self._progress.add_task(shown, total=total, detail=detail)
        self._progress.update(self._tasks[what], completed=done, total=total, detail=detail)
        if done >= total:
            self._progress.remove_task(self._tasks.pop(what))

    def note(self, text: str) -> None:
        """Say in a line above the bars what is made or waited for; nothing where it is empty."""
        self._progress.note = printable(text)
        self._progress.refresh()

    def advance(self) -> None:
        """One asset more is there, and no work on it goes on."""
        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks.clear()
        self._progress.advance(self._assets)


class _Display(Progress):
    """Bars below a note; the note is one line, whatever the terminal's width."""

    note = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.note:
            yield Text(shortened(self.note, self.console.width))
        yield self.make_tasks_table(self.tasks)


def _column(ratio: int | None = None) -> Column:
    return Column(no_wrap=True, overflow="ellipsis", ratio=ratio)


def shortened(text: str, width: int) -> str:
    """`text` in so many columns: where it is longer, `…` stands for its middle. What follows its
    last slash stays, as the stage of an asset."""
    if cell_len(text) <= width:
        return text
    head, slash, tail = text.rpartition("/")
    room = width - cell_len(slash + tail)
    if slash and room >= LEAST_OF_NAME:
        return f"{_without_middle(head, room)}/{tail}"
    return _without_middle(text, width)


def _without_middle(text: str, width: int) -> str:
    head = tail = len(text) // 2
    while head + tail > 0 and cell_len(text[:head]) + cell_len(text[len(text) - tail :]) >= width:
        head, tail = (head - 1, tail) if head >= tail else (head, tail - 1)
    return f"{text[:head]}…{text[len(text) - tail :]}"
