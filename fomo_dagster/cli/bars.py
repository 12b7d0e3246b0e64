"""Bars of work that goes on, on a terminal; nothing without one."""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from fomo_dagster.cli.output import printable

BAR = 20  # characters: with counts, loss and speed, a bar fits 80 columns
LONGEST_WORK = 24  # characters of what is done
LEAST_OF_NAME = 8  # characters of an experiment's name, where it is cut


class Display(Progress):
    """Bars with what is done, how much of it, a detail, and the time left.

    auto_refresh: whether a thread of its own draws it again and again.
    """

    def __init__(self, console: Console, *, auto_refresh: bool = True) -> None:
        self.bar = BarColumn(bar_width=BAR)
        super().__init__(
            TextColumn("{task.description}", markup=False, table_column=_column()),
            self.bar,
            _Count(table_column=_column()),
            TextColumn("{task.fields[detail]}", markup=False, table_column=_column(ratio=1)),
            TimeRemainingColumn(table_column=_column()),
            console=console,
            transient=True,
            expand=True,
            auto_refresh=auto_refresh,
            disable=not console.is_interactive,  # it would end with an empty line
        )


class Bars:
    """A bar for each kind of work."""

    def __init__(self, console: Console) -> None:
        self._progress = Display(console)
        self._works = Works(self._progress)

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, what: str, done: int, total: int, detail: str = "") -> None:
        """See `fomo_dagster.progress.Progress`."""
        self._works(what, done, total, detail)


class Works:
    """The bars of one thing: each kind of work on it has one, from its first sign to its end."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int, detail: str = "") -> None:
        """See `fomo_dagster.progress.Progress`."""
        detail = printable(detail)
        if what not in self._tasks:
            shown = shortened(printable(what), LONGEST_WORK)
            self._tasks[what] = self._display.add_task(shown, total=total, detail=detail)
        self._display.update(self._tasks[what], completed=done, total=total, detail=detail)
        if done >= total:
            self._display.remove_task(self._tasks.pop(what))

    @property
    def last(self) -> tuple[str, TaskID] | None:
        """The work that began last of those that go on, and its bar."""
        return next(reversed(self._tasks.items()), None)

    def clear(self) -> None:
        """No work goes on."""
        for task in self._tasks.values():
            self._display.remove_task(task)
        self._tasks.clear()


class _Count(ProgressColumn):
    """How much is done; nothing where it is not known how much there is."""

    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else f"{task.completed:,}/{task.total:,}")


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
