"""What a person sees of a run: a line for each asset, and how the work on one goes.

A terminal has bars below the lines. Without one, as in a log file, there is a line where the making
of an asset begins, and one every half minute while it goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import RLock
from typing import Protocol

from rich.console import Console
from rich.status import Status

from fomo_dagster.cli.bars import shortened
from fomo_dagster.cli.galleries import print_gallery
from fomo_dagster.cli.output import line, say
from fomo_dagster.cli.planning import RunRequest
from fomo_dagster.cli.reporting import print_results
from fomo_dagster.cli.run_bars import RunBars
from fomo_dagster.cli.sweeps import print_sweep
from fomo_dagster.errors import FomoError
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.run.plan import Planned
from fomo_dagster.store.cleaning import Cleaning
from fomo_dagster.store.heads import Head
from fomo_dagster.store.packing import Packing
from fomo_dagster.units import byte_size, counted, duration, rate

SECONDS_BETWEEN_LINES = 30.0
COLUMNS_BESIDE_NAME = 24  # of the line of an asset: what became of it, and how long that took
STYLES = {"computed": "yellow", "hit": "green", "failed": "red", "warning": "yellow"}


class StepView(Protocol):
    """Whom a step of a run tells what it does, from a thread of its own.

    All of it belongs to the asset that the step last began or, before it begins any, to the one
    that it is about to make.
    """

    def begins(self, node: Node) -> None:
        """An artifact of an asset is about to be made."""

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        """As `fomo_dagster.progress.Progress`."""

    def steps(self, asset: str, digest: str, rows: Sequence[Mapping[str, float]]) -> None:
        """As `fomo_dagster.progress.Steps`."""

    def waiting(self, what: str) -> None:
        """Others have what this step needs: a thing, and after a comma who has it."""

    def goes_on(self) -> None:
        """It waits no longer, if it did. Whatever else is told after a wait says the same."""

    def finished(self, head: Head, seconds: float) -> None:
        """An asset was materialised, which took so long."""


class RunView(Protocol):
    """Whom `fomo run` tells what it does. Any thread may, at any time.

    Experiments of a sweep begin and end in any order, each with `up_to_date` or `not_up_to_date`.
    """

    def experiment(self, name: str, number: int, count: int) -> None:
        """An experiment begins, which is that number of so many."""

    def planned(self, name: str, planned: Sequence[Planned]) -> None:
        """What there is to be done of an experiment, where anything is."""

    def waiting(self, what: str) -> None:
        """Another process has what the whole run needs."""

    def goes_on(self) -> None:
        """The run waits no longer, if it did."""

    def materialising(self, assets: Sequence[str]) -> AbstractContextManager[None]:
        """Within it assets are materialised."""

    def step(self, asset: str) -> StepView:
        """A step begins, which makes an asset; of chunks, what their keys begin with."""

    def failed(self, asset: str, error: FomoError) -> None:
        """A step failed, known by the same asset. Others may go on."""

    def warn(self, warning: str) -> None:
        """Something that a person should hear."""

    def up_to_date(self, request: RunRequest, assets: int) -> None:
        """An experiment is, with so many assets."""

    def cleaned(self, name: str, cleaning: Cleaning) -> None:
        """Weights went that an experiment does not retain."""

    def packed(self, name: str, packing: Packing) -> None:
        """Weights of an experiment are kept packed from now on."""

    def not_up_to_date(self, name: str, error: FomoError) -> None:
        """An experiment of several failed, and others go on."""

    def ended(self, request: RunRequest) -> None:
        """Nothing more is made: an experiment, a comparison or a gallery is up to date, or the
        experiments of a sweep were tried."""


@dataclass
class Pace:
    """How fast work within an asset goes on, and whether it is time to say so again."""

    seconds_between: float
    clock: Callable[[], float] = time.monotonic
    _begun: dict[str, tuple[float, int]] = field(default_factory=dict)
    _said_at: dict[str, float] = field(default_factory=dict)

    def restart(self) -> None:
        """Another asset's work begins."""
        self._begun.clear()
        self._said_at.clear()

    def is_due(self, what: str) -> bool:
        """Whether the last time is long enough ago; of new work, whether it has gone on for as
        long."""
        now = self.clock()
        if now - self._said_at.setdefault(what, now) < self.seconds_between:
            return False
        self._said_at[what] = now
        return True

    def seconds_left(self, what: str, done: int, total: int) -> float | None:
        """By its mean speed since it was first told of; None at that moment."""
        since, before = self._begun.setdefault(what, (self.clock(), done))
        if done <= before:
            return None
        return (self.clock() - since) / (done - before) * (total - done)


@dataclass
class StepState:
    """What views know of a step, or of the run itself.

    asset: that it last began or is about to make. row: the figures of its training's last step.
    """

    made: str  # by the step; of chunks, what their keys begin with
    pace: Pace
    asset: str = field(init=False)
    row: Mapping[str, float] = field(init=False, default_factory=dict)
    _has_begun: bool = field(init=False, default=False)
    _waits_since: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.asset = self.made

    def begins(self, asset: str) -> bool:
        """Whether that is another asset than before, and not its second artifact."""
        if self._has_begun and asset == self.asset:
            return False
        self.asset, self._has_begun, self.row = asset, True, {}
        self.pace.restart()
        return True

    def ends(self) -> None:
        """Its asset is there. Of chunks, another may follow."""
        self.asset, self._has_begun, self.row = self.made, False, {}

    def waits(self) -> None:
        """It does, if it did not already."""
        if self._waits_since is None:
            self._waits_since = self.pace.clock()

    def goes_on(self) -> float | None:
        """How long it waited; None where it did not."""
        if self._waits_since is None:
            return None
        waited, self._waits_since = self.pace.clock() - self._waits_since, None
        return waited


class TextView:
    """A run in words, as a `RunView`."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self.lock = RLock()
        self.bars = RunBars(console, self.lock)
        self._clock = clock
        self._run = self._state("")
        self._name_width = 0
        self._status: Status | None = None
        self._numbers: dict[str, str] = {}
        self._count = 1
        self._ended = 0
        self._said: set[str] = set()  # reasons

    def experiment(self, name: str, number: int, count: int) -> None:
        if count > 1:
            with self.lock:
                self._numbers[name] = f" ({number} of {count})"
                self._count = count

    def planned(self, name: str, planned: Sequence[Planned]) -> None:
        computed = sum(entry.status == "compute" for entry in planned)
        hits = counted(len(planned) - computed, "hit")
        number = self._numbers.get(name, "")
        with self.lock:
            style = "bold" if number else ""
            said = f"{number}: {counted(computed, 'asset')} to compute, {hits}"
            say(self.console, (name, style), said)

    def waiting(self, what: str) -> None:
        said = f"waiting for {what}"
        with self.lock:
            self._run.waits()
            if not self.console.is_interactive:
                say(self.console, f"  {said}")
                return
            self._status = self._status or self.console.status("")
            self._status.update(line(said))
            self._status.start()

    def goes_on(self) -> None:
        with self.lock:
            waited = self._run.goes_on()
            if self._status is not None:
                self._status.stop()
            if waited is not None and not self.console.is_interactive:
                self.line("waited", duration(waited))

    @contextmanager
    def materialising(self, assets: Sequence[str]) -> Iterator[None]:
        self._name_width = max(map(len, assets), default=0)
        if self.console.is_interactive:
            room = max(12, self.console.width - COLUMNS_BESIDE_NAME)
            self._name_width = min(self._name_width, room)
        with RunBars(self.console, self.lock, assets, list(self._numbers)) as self.bars:
            yield

    def step(self, asset: str) -> StepView:
        with self.lock:
            self.bars.end(asset)  # of a step that is tried again
        return _TextStep(self, self._state(asset))

    def made(self, head: Head, seconds: float) -> None:
        """An asset is there: its line, and one more in the bar of all."""
        name = head.asset
        if self.console.is_interactive:
            name = shortened(name, self._name_width)
        self.line(head.status, f"{name:{self._name_width}} {duration(seconds):>11}")
        self.bars.advance()

    def failed(self, asset: str, error: FomoError) -> None:
        """Where others go on, perhaps for hours, or the command ends with what became of several
        experiments, the reason is said now; else the command ends with it."""
        with self.lock:
            self.bars.end(asset)
            if self.bars or self._count > 1:
                self._said.add(str(error))
                self.line("failed", str(error))

    def warn(self, warning: str) -> None:
        with self.lock:
            self.line("warning", warning)

    def up_to_date(self, request: RunRequest, assets: int) -> None:
        name = request.experiment.name
        with self.lock:
            self._ended += 1
            so_far = f"; {self._ended} of {self._count} ended" if self._count > 1 else ""
            say(self.console, f"{name} is up to date ({counted(assets, 'asset')}){so_far}")

    def cleaned(self, name: str, cleaning: Cleaning) -> None:
        weights = counted(len(cleaning.artifacts), "checkpoint")
        with self.lock:
            self.line("cleaned", f"{weights} of {name}, {byte_size(cleaning.bytes)} (retention)")

    def packed(self, name: str, packing: Packing) -> None:
        weights = counted(len(packing.artifacts), "checkpoint")
        sizes = f"{byte_size(packing.whole)} became {byte_size(packing.packed)}"
        with self.lock:
            self.line("packed", f"{weights} of {name}, {sizes} (retention)")

    def not_up_to_date(self, name: str, error: FomoError) -> None:
        said = str(error)
        whose = "" if said.startswith(name) else f"{name}: "
        with self.lock:
            self._ended += 1
            if whose or said not in self._said:
                self.line("failed", f"{whose}{said}")

    def ended(self, request: RunRequest) -> None:
        with self.lock:
            if request.comparison is not None:
                from fomo_dagster.cli.comparing import print_comparison  # which loads SciPy

                print_comparison(request.comparison, request.report, request.home, self.console)
            elif request.gallery is not None:
                print_gallery(request.gallery.loaded.name, request.home, self.console)
            elif request.experiment_set.is_several:
                print_sweep(request.home, request.experiment_set, self.console)
            else:
                print_results(request.home, request.experiment.name, request.graph, self.console)

    def line(self, word: str, said: str) -> None:
        """One that stays, of what became of an asset. Within `lock`."""
        say(self.console, "  ", (f"{word:8}", STYLES.get(word, "")), f" {said}")

    def _state(self, asset: str) -> StepState:
        return StepState(asset, Pace(SECONDS_BETWEEN_LINES, self._clock))


class _TextStep:
    """A step in words, as a `StepView`."""

    def __init__(self, view: TextView, state: StepState) -> None:
        self._view = view
        self._state = state
        self._is_log = not view.console.is_interactive

    def begins(self, node: Node) -> None:
        with self._view.lock:
            self._goes_on()
            if not self._state.begins(node.key):
                return
            self._view.bars.begin(self._state.made, node.key)
            if self._is_log:
                self._view.line("begin", node.key)

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        state = self._state
        with self._view.lock:
            self._goes_on()
            left = state.pace.seconds_left(what, done, total)
            speed = state.row.get("samples_per_second")
            told = [detail, "" if speed is None else rate(speed)]
            beside = ", ".join(filter(None, told))
            self._view.bars.work(state.made, state.asset, what, done, total, beside)
            if self._is_log and state.pace.is_due(what) and done < total:
                told.append(
                    "" if left is None else f"{duration(left)} left, until {_clock_in(left)}"
                )
                said = ", ".join([f"{what} {done:,} of {total:,}", *filter(None, told)])
                self._view.line("progress", f"{state.asset}  {said}")

    def steps(self, asset: str, digest: str, rows: Sequence[Mapping[str, float]]) -> None:
        with self._view.lock:
            if rows:
                self._state.row = rows[-1]

    def waiting(self, what: str) -> None:
        state = self._state
        with self._view.lock:
            state.waits()
            self._view.bars.wait(state.made, state.asset, what)
            if self._is_log:
                self._view.line("waiting", f"{state.asset}  for {what}")

    def goes_on(self) -> None:
        with self._view.lock:
            self._goes_on()

    def finished(self, head: Head, seconds: float) -> None:
        with self._view.lock:
            self._goes_on()
            self._state.ends()
            self._view.bars.end(self._state.made)
            self._view.made(head, seconds)

    def _goes_on(self) -> None:
        waited = self._state.goes_on()
        if waited is None:
            return
        self._view.bars.wait(self._state.made, self._state.asset, "")
        if self._is_log:
            self._view.line("waited", f"{self._state.asset}  {duration(waited)}")


def _clock_in(seconds: float) -> str:
    """The time of day then, with the day where that is far."""
    then = datetime.now() + timedelta(seconds=seconds)
    return f"{then:%H:%M}" if seconds < 12 * 3600 else f"{then:%a %d %b %H:%M}"
