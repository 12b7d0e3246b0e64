"""The queue to one tracker, on its own thread, so that nobody waits for it or fails with it.

Whatever goes wrong (an exception, a server that does not answer, or one that is too slow) ends this
queue and nothing else.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

from fomo_dagster.store.digests import digest_of
from fomo_dagster.trackers.ledger import Ledger, Sent
from fomo_dagster.trackers.reasons import reason_of, without_secrets
from fomo_dagster.trackers.tracker import Entry, Model, OpenRun, Point, Registry, Run, Tracker

_MOST_WAITING = 100_000  # jobs; a job is an asset, or some steps
_MOST_OPEN = 4  # runs
_POINTS_AT_ONCE = 1000
_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class Job:
    """Entries of a run; they are gathered on the lane, where a failure does no harm."""

    run: Run
    entries: Callable[[], Iterable[Entry]]


@dataclass(frozen=True)
class Registration:
    """A release name whose registry is to be up to date; read on the lane, as entries are."""

    name: str
    model: Callable[[], Model]


@dataclass(frozen=True)
class Patience:
    """Seconds between sendings, that one may take, and that closing waits for each."""

    between: float = 1.0
    to_answer: float = 120.0
    to_close: float = 30.0


class TrackerQueue:
    """Sends jobs to a tracker in their order."""

    def __init__(
        self,
        name: str,
        make: Callable[[], Tracker],
        ledgers: Path,
        patience: Patience,
        advice: str,
    ) -> None:
        self.name, self._advice = name, advice
        self._attempt = "be started"
        self._make, self._ledgers, self._patience = make, ledgers, patience
        self._queue: queue.Queue[Job | Registration | None] = queue.Queue(_MOST_WAITING)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._busy_since: float | None = None
        self._failure = ""
        self._said = False
        self._open: dict[str, OpenRun] = {}

    def put(self, job: Job | Registration) -> None:
        """Queue a job; never waits, never fails."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
            self._thread.start()
        since = self._busy_since
        if since is not None and time.monotonic() - since > self._patience.to_answer:
            self._fail(f"no answer for {self._patience.to_answer:g} s")
        if not self._failure:
            try:
                self._queue.put_nowait(job)
            except queue.Full:
                self._fail("it is slower than what it is sent")

    def end(self) -> None:
        """Close the tracker once everything that waits is sent."""
        self._closing.set()
        if self._thread is not None:
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait(None)

    def wait(self, since: float) -> None:
        """After `end`: until that is done, or nothing has moved for too long. since: `end`."""
        if self._thread is None:
            return
        while self._thread.is_alive() and not self._failure:
            moved = max(since, self._busy_since or since)
            left = moved + self._patience.to_close - time.monotonic()
            if left <= 0:
                self._fail(f"no answer for {self._patience.to_close:g} s at the end")
            self._thread.join(min(max(left, 0.0), _SECONDS_BETWEEN_LOOKS))

    def news(self) -> str | None:
        """What the user should hear, reported once: why nothing more is sent."""
        if not self._failure or self._said:
            return None
        self._said = True
        return (
            f"tracker {self.name} failed and is switched off for the rest of this run, "
            f"which continues without it: it could not {self._failure}. {self._advice}The next "
            "run sends what it missed"
        )

    def _fail(self, why: str) -> None:
        self._failure = self._failure or f"{self._attempt}: {why}"

    def _work(self) -> None:
        try:
            self._busy_since = time.monotonic()
            tracker = self._make()
            ledger = Ledger(self._ledgers / f"{self.name}_{digest_of(tracker.destination)[:8]}")
            while (jobs := self._take()) and not self._failure:
                self._busy_since = time.monotonic()
                self._send([job for job in jobs if isinstance(job, Job)], tracker, ledger)
                if isinstance(tracker, Registry):
                    names = {job.name: job for job in jobs if isinstance(job, Registration)}
                    for registration in names.values():
                        self._register(registration, tracker, ledger)
                self._busy_since = None
                self._closing.wait(self._patience.between)
            self._busy_since = time.monotonic()
            for name in self._open:
                self._close(name)
        except Exception as error:
            self._fail(reason_of(error))
        self._busy_since = None

    def _register(self, registration: Registration, tracker: Registry, ledger: Ledger) -> None:
        """Nothing is asked of a tracker that has it all."""
        name = registration.name
        self._attempt = f"register the releases of {name!r}"
        with ledger.registered(name) as noted:
            model = registration.model()
            digest = digest_of(asdict(model))
            if model.versions and noted.digest != digest:
                self._busy_since = time.monotonic()
                tracker.register(model)
                noted.save(digest)

    def _take(self) -> list[Job | Registration]:
        """Everything that waits, at least one job; nothing at the end."""
        self._busy_since = None
        jobs: list[Job | Registration | None] = [self._queue.get()]
        with contextlib.suppress(queue.Empty):
            while jobs[-1] is not None:
                jobs.append(self._queue.get_nowait())
        if jobs[-1] is None and len(jobs) > 1:
            self._queue.put(None)  # once more, for the next turn
        return [job for job in jobs if job is not None]

    def _send(self, jobs: Iterable[Job], tracker: Tracker, ledger: Ledger) -> None:
        by_name: dict[str, list[Job]] = {}
        for job in jobs:
            by_name.setdefault(job.run.name, []).append(job)
        for name, its_jobs in by_name.items():
            self._attempt = f"find what run {name!r} was sent before"
            entries = [entry for job in its_jobs for entry in job.entries()]
            with ledger.account(name) as account:
                belonging: dict[str, list[Entry]] = {}
                for entry in entries:
                    belonging.setdefault(account.run_of(entry).name, []).append(entry)
                for sent in account.runs:
                    # What the run does not have; it is not even opened for nothing.
                    new = [
                        entry
                        for entry in belonging.get(sent.name, ())
                        if not sent.has(entry) or sent.missing(entry)
                    ]
                    if not new:
                        continue
                    run = Run(sent.name, its_jobs[-1].run.configuration)
                    opened = self._opened(tracker, run, sent)
                    if opened.id != sent.id:  # there is nothing any more of what was sent
                        sent.id, sent.points, sent.known = opened.id, 0, {}
                    self._attempt = f"send to run {run.name!r}{self._at(tracker)}"
                    for points, parameters in _pieces(new, sent):
                        opened.log(points, parameters)
                        account.save()
                        self._busy_since = time.monotonic()
                account.save()  # also which run is continued

    def _opened(self, tracker: Tracker, run: Run, sent: Sent) -> OpenRun:
        if run.name not in self._open:
            if len(self._open) == _MOST_OPEN:
                oldest = next(iter(self._open))
                self._close(oldest)
                del self._open[oldest]
            self._attempt = f"open run {run.name!r}{self._at(tracker)}"
            self._open[run.name] = tracker.open(run, sent.id, sent.points)
        return self._open[run.name]

    def _close(self, name: str) -> None:
        self._attempt = f"finish run {name!r}"
        self._open[name].close()

    @staticmethod
    def _at(tracker: Tracker) -> str:
        return f" at {without_secrets(tracker.place)}"


def _pieces(entries: Iterable[Entry], sent: Sent) -> Iterator[tuple[list[Point], dict[str, str]]]:
    """What a run does not have of the entries, so much at a time, in whole steps. A piece counts as
    sent once it is given."""
    points: list[Point] = []
    parameters: dict[str, str] = {}
    for entry in entries:
        parameters |= entry.parameters
        for _, group in groupby(sent.missing(entry), key=lambda point: point.step):
            step = tuple(group)
            sent.note(replace(entry, points=step))
            points += step
            if len(points) >= _POINTS_AT_ONCE:
                yield points, parameters
                points, parameters = [], {}
        sent.note(entry)
    if points or parameters:
        yield points, parameters
