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
from typing import Protocol

from rich.console import Console
from rich.status import Status

from fomo_dagster.cli.bars import Bars, shortened
from fomo_dagster.cli.output import line, say
from fomo_dagster.cli.planning import RunRequest
from fomo_dagster.cli.reporting import print_results
from fomo_dagster.cli.sweeps import print_sweep
from fomo_dagster.errors import FomoError
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.run.plan import Planned
from fomo_dagster.store.heads import Head
from fomo_dagster.units import counted, duration, rate

SECONDS_BETWEEN_LINES = 30.0
COLUMNS_BESIDE_NAME = 24  # of the line of an asset: what became of it, and how long that took
STYLES = {"computed": "yellow", "hit": "green", "failed": "red", "warning": "yellow"}


class RunView(Protocol):
    """Whom `fomo run` tells what it does, in this order."""

    def experiment(self, name: str, number: int, count: int) -> None:
        """An experiment begins, which is that number of so many."""

    def planned(self, name: str, planned: Sequence[Planned]) -> None:
        """What there is to be done of an experiment, where anything is."""

    def materialising(self, assets: Sequence[str]) -> AbstractContextManager[None]:
        """Within it assets are materialised."""

    def begins(self, node: Node) -> None:
        """An artifact of an asset is about to be made."""

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        """As `fomo_dagster.progress.Progress`."""

    def steps(self, asset: str, digest: str, rows: Sequence[Mapping[str, float]]) -> None:
        """As `fomo_dagster.progress.Steps`."""

    def waiting(self, what: str) -> None:
        """Others have what this process needs."""

    def goes_on(self) -> None:
        """It waits no longer, if it did. Whatever else is told after a wait says the same."""

    def finished(self, head: Head, seconds: float) -> None:
        """An asset was materialised, which took so long."""

    def failed(self, asset: str, error: FomoError) -> None:
        """An asset could not be materialised."""

    def warn(self, warning: str) -> None:
        """Something that a person should hear."""

    def up_to_date(self, request: RunRequest, assets: int) -> None:
        """An experiment is, with so many assets."""

    def not_up_to_date(self, name: str, error: FomoError) -> None:
        """An experiment of a sweep failed, and others go on."""

    def ended(self, request: RunRequest) -> None:
        """Nothing more is made: an experiment is up to date, or those of a sweep were tried."""


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


class TextView:
    """A run in words, as a `RunView`."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self._clock = clock
        self._pace = Pace(SECONDS_BETWEEN_LINES, clock)
        self._bars = Bars(console)
        self._asset = ""
        self._speed: float | None = None
        self._name_width = 0
        self._waits_since: float | None = None
        self._status: Status | None = None

    def experiment(self, name: str, number: int, count: int) -> None:
        if count > 1:
            say(self.console, (name, "bold"), f" ({number} of {count})")

    def planned(self, name: str, planned: Sequence[Planned]) -> None:
        computed = sum(entry.status == "compute" for entry in planned)
        hits = counted(len(planned) - computed, "hit")
        say(self.console, f"{name}: {counted(computed, 'asset')} to compute, {hits}")

    @contextmanager
    def materialising(self, assets: Sequence[str]) -> Iterator[None]:
        self._name_width = max(map(len, assets), default=0)
        if self.console.is_interactive:
            room = max(12, self.console.width - COLUMNS_BESIDE_NAME)
            self._name_width = min(self._name_width, room)
        with Bars(self.console, len(assets)) as self._bars:
            try:
                yield
            finally:
                self._asset = ""
                self.goes_on()

    def begins(self, node: Node) -> None:
        self.goes_on()
        if node.key == self._asset:
            return
        self._asset, self._speed = node.key, None
        self._pace.restart()
        self._bars.note(node.key)
        if not self.console.is_interactive:
            self._line("begin", node.key)

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        self.goes_on()
        left = self._pace.seconds_left(what, done, total)
        told = [detail, "" if self._speed is None else rate(self._speed)]
        self._bars(what, done, total, ", ".join(filter(None, told)))
        if not self.console.is_interactive and self._pace.is_due(what) and done < total:
            told.append("" if left is None else f"{duration(left)} left, until {_clock_in(left)}")
            said = ", ".join([f"{what} {done:,} of {total:,}", *filter(None, told)])
            self._line("progress", f"{self._asset}  {said}".lstrip())

    def steps(self, asset: str, digest: str, rows: Sequence[Mapping[str, float]]) -> None:
        if rows:
            self._speed = rows[-1]["samples_per_second"]

    def waiting(self, what: str) -> None:
        if self._waits_since is None:
            self._waits_since = self._clock()
        said = f"waiting for {what}"
        if not self.console.is_interactive:
            say(self.console, f"  {said}")
        elif self._name_width:
            self._bars.note(said)
        else:
            self._status = self._status or self.console.status("")
            self._status.update(line(said))
            self._status.start()

    def goes_on(self) -> None:
        if self._waits_since is None:
            return
        waited, self._waits_since = self._clock() - self._waits_since, None
        self._bars.note(self._asset)
        if self._status is not None:
            self._status.stop()
        if not self.console.is_interactive:
            self._line("waited", duration(waited))

    def finished(self, head: Head, seconds: float) -> None:
        self._asset = ""
        self.goes_on()
        self._bars.note("")
        name = head.asset
        if self.console.is_interactive:
            name = shortened(name, self._name_width)
        self._line(head.status, f"{name:{self._name_width}} {duration(seconds):>11}")
        self._bars.advance()

    def failed(self, asset: str, error: FomoError) -> None:
        """The command ends with the error, or the sweep goes on after it: both say it."""

    def warn(self, warning: str) -> None:
        self._line("warning", warning)

    def up_to_date(self, request: RunRequest, assets: int) -> None:
        said = counted(assets, "asset")
        say(self.console, f"{request.experiment.name} is up to date ({said})")

    def not_up_to_date(self, name: str, error: FomoError) -> None:
        self._line("failed", str(error))

    def ended(self, request: RunRequest) -> None:
        if request.experiment_set.is_several:
            print_sweep(request.home, request.experiment_set, self.console)
        else:
            print_results(request.home, request.experiment.name, request.graph, self.console)

    def _line(self, word: str, said: str) -> None:
        say(self.console, "  ", (f"{word:8}", STYLES.get(word, "")), f" {said}")


def _clock_in(seconds: float) -> str:
    """The time of day then, with the day where that is far."""
    then = datetime.now() + timedelta(seconds=seconds)
    return f"{then:%H:%M}" if seconds < 12 * 3600 else f"{then:%a %d %b %H:%M}"
