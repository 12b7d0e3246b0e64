"""The bars of a run: of each asset that is being made, and of how many there are."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console, RenderableType
from rich.progress import Task, TaskID
from rich.text import Text

from fomo_dagster.cli.bars import Display, Works, shortened
from fomo_dagster.cli.output import printable

SECONDS_BETWEEN_DRAWINGS = 0.2  # twenty bars take 9 ms of a core each time
# Where several assets are made at once, a line holds an asset's name, its work and a shorter bar.
SHORT_BAR = 10
WORK = 12  # characters of what is done
COLUMNS_BESIDE_LABEL = SHORT_BAR + 13 + 12 + 7 + 4  # the bar, counts, detail, time left, gaps
LEAST_LABEL = 24
LINES_BESIDE_BARS = 5  # a finished asset, how many bars are left out, who waits, all, the cursor


@dataclass
class _Row:
    """What a step is at: making its asset, or waiting.

    pulse: the bar that shows while no work is told of.
    """

    asset: str
    works: Works
    pulse: TaskID
    waits_for: str = ""


class RunBars:
    """Below the lines of a run: one asset with a bar for each kind of work on it or, once several
    were made at once, a bar for each; and a bar of all assets.

    assets: what there is to make. experiments: those of a sweep. Steps are known by the asset that
    each makes; of chunks, by what their keys begin with.

    Whoever tells it something holds `lock`. So does its own thread, which draws it a few times a
    second: lines and bars that are written at once would tear each other.
    """

    def __init__(
        self,
        console: Console,
        lock: AbstractContextManager[object],
        assets: Sequence[str] = (),
        experiments: Sequence[str] = (),
    ) -> None:
        self._lock = lock
        self._progress = _RunDisplay(console, auto_refresh=False)
        self._progress.names_start = common_start(experiments)
        self._progress.name_width = max(map(cell_len, assets), default=0)
        self._assets = self._progress.add_task(
            "assets", total=len(assets), detail="", visible=bool(assets)
        )
        self._rows: dict[str, _Row] = {}
        self._ended = threading.Event()

    def __enter__(self) -> RunBars:
        self._progress.start()
        if not self._progress.disable:
            threading.Thread(target=self._draw, name="run-bars", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._ended.set()
            self._progress.stop()

    def begin(self, step: str, asset: str) -> None:
        """A step makes an asset from now on."""
        row = self._row(step, asset)
        row.asset, row.waits_for = printable(asset), ""
        row.works.clear()

    def work(self, step: str, asset: str, what: str, done: int, total: int, detail: str) -> None:
        """Work on a step's asset goes on; see `fomo_dagster.progress.Progress`."""
        self._row(step, asset).works(what, done, total, detail)

    def wait(self, step: str, asset: str, what: str) -> None:
        """A step waits; no longer, where `what` is empty."""
        self._row(step, asset).waits_for = printable(what)

    def end(self, step: str) -> None:
        """A step has nothing to make now."""
        row = self._rows.pop(step, None)
        if row is not None:
            row.works.clear()
            self._progress.remove_task(row.pulse)
            self._progress.rows = tuple(self._rows.values())

    def advance(self) -> None:
        """One asset more is there."""
        self._progress.advance(self._assets)

    def __bool__(self) -> bool:
        """Whether some step is at something."""
        return bool(self._rows)

    def _row(self, step: str, asset: str) -> _Row:
        if step not in self._rows:
            pulse = self._progress.add_task("", total=None, detail="", visible=False)
            self._rows[step] = _Row(printable(asset), Works(self._progress), pulse)
            self._progress.rows = tuple(self._rows.values())
        return self._rows[step]

    def _draw(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_DRAWINGS):
            with self._lock:
                if not self._ended.is_set():
                    self._progress.live.refresh()


class _RunDisplay(Display):
    """Draws the rows, each in one line whatever the terminal's width."""

    name_width = 0  # of the assets' names
    names_start = ""  # of the experiments' names
    _several = False
    _rows: Sequence[_Row] = ()  # `Progress` draws before it is whole

    @property
    def rows(self) -> Sequence[_Row]:
        """Of the steps that are at something, in the order in which they began."""
        return self._rows

    @rows.setter
    def rows(self, rows: Sequence[_Row]) -> None:
        self._rows = rows
        if len(rows) > 1 and not self._several:  # and so it stays: the lines would jump
            self._several, self.bar.bar_width = True, SHORT_BAR

    def refresh(self) -> None:
        """Not at each of the many things that threads tell: see `RunBars`."""

    def get_renderables(self) -> Iterable[RenderableType]:
        return self._several_renderables() if self._several else self._one_renderables()

    def _one_renderables(self) -> Iterable[RenderableType]:
        for row in self.rows:
            said = f"waiting for {row.waits_for}" if row.waits_for else row.asset
            yield Text(shortened(said, self.console.width))
        yield self.make_tasks_table(self.tasks)

    def _several_renderables(self) -> Iterable[RenderableType]:
        making = [row for row in self.rows if not row.waits_for]
        shown = making[: max(1, self.console.height - LINES_BESIDE_BARS)]
        tasks = {task.id: task for task in self.tasks}
        yield self.make_tasks_table([self._labelled(row, tasks) for row in shown])
        if len(shown) < len(making):
            yield Text(f"and {len(making) - len(shown)} more")
        waits = said_of_waits(
            [(self._named(row.asset), row.waits_for) for row in self.rows if row.waits_for]
        )
        if waits:
            yield Text(waits, no_wrap=True, overflow="ellipsis")
        assets = self.tasks[0]
        assets.description = set_cell_size("assets", self._label_width)
        yield self.make_tasks_table([assets])

    def _labelled(self, row: _Row, tasks: dict[TaskID, Task]) -> Task:
        """The bar of the work on a row's asset that began last, or one that only moves."""
        what, number = row.works.last or ("", row.pulse)
        name = set_cell_size(self._named(row.asset), self._label_width - WORK - 1)
        work = set_cell_size(shortened(printable(what), WORK), WORK)
        task = tasks[number]
        task.description, task.visible = f"{name} {work}", True
        return task

    @property
    def _label_width(self) -> int:
        room = max(LEAST_LABEL, self.console.width - COLUMNS_BESIDE_LABEL)
        return min(self.name_width + 1 + WORK, room)

    def _named(self, asset: str) -> str:
        """An asset's name in its column. Where it is too long, what the others begin with too goes
        first, as little of it as will do."""
        width = self._label_width - WORK - 1
        said = asset
        if asset.startswith(self.names_start):
            for end in re.finditer("_", self.names_start):
                if cell_len(said) > width:
                    said = f"…{asset[end.end() :]}"
        return shortened(said, width)


def common_start(names: Sequence[str]) -> str:
    """What all the names of several begin with, up to a `_`."""
    columns = zip(*(name.split("_") for name in names), strict=False)
    same = itertools.takewhile(lambda parts: len(set(parts)) == 1, columns)
    return "".join(f"{parts[0]}_" for parts in same) if len(names) > 1 else ""


def said_of_waits(waits: Sequence[tuple[str, str]]) -> str:
    """A sentence of assets that wait, each given with what for: a thing, a comma and who has it."""
    if len(waits) == 1:
        ((asset, what),) = waits
        return f"{asset} waits for {what}"
    assets: dict[str, list[str]] = {}
    for asset, what in waits:
        assets.setdefault(what.partition(",")[0], []).append(asset)
    return "; ".join(
        f"{len(names)} wait{'s' * (len(names) == 1)} for {what}: {', '.join(names)}"
        for what, names in assets.items()
    )
