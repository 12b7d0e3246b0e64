"""Collects rows of many requests into batches, which one thread runs.

A batch is of one kind (images, or texts), the oldest request first. It is run once it is full, or
once its oldest request has waited for `wait_seconds`. A request of more rows than fit goes on in
later batches, behind what came meanwhile, so that a large one holds up nobody for long.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Rows: TypeAlias = npt.NDArray[Any]
Run: TypeAlias = Callable[[str, Rows], Rows]
"""(kind, rows (N, …)) -> results (N, …), a row for each, in their order."""
OnBatch: TypeAlias = Callable[[str, int, float], None]
"""Told of each batch that was run: its kind, its rows, the seconds it took."""


def ignore_batches(kind: str, rows: int, seconds: float) -> None:
    """Nobody wants to know."""


@dataclass(eq=False)  # two requests may have the same rows
class _Request:
    kind: str
    rows: Rows
    since: float
    future: Future[Rows] = field(default_factory=Future)
    taken: int = 0
    parts: list[Rows] = field(default_factory=list)


@dataclass(frozen=True)
class _Part:
    """Rows `start` to `stop` of a request."""

    request: _Request
    start: int
    stop: int

    @property
    def rows(self) -> Rows:
        return self.request.rows[self.start : self.stop]


class Batcher:
    """Runs what is submitted, in batches of at most `most_rows`. Its callers bound how much waits.

    A request whose future is cancelled before any of its rows were taken is dropped.
    """

    def __init__(
        self, run: Run, *, most_rows: int, wait_seconds: float, on_batch: OnBatch = ignore_batches
    ) -> None:
        self._run, self._most_rows, self._wait_seconds = run, most_rows, wait_seconds
        self._on_batch = on_batch
        self._queues: dict[str, deque[_Request]] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, kind: str, rows: Rows) -> Future[Rows]:
        """Run rows (N, …), N at least 1; of one kind, all have the same shape. The result has a row
        for each, or the error of a batch that one of them was in."""
        if not len(rows):
            raise ValueError("there are no rows to run")
        request = _Request(kind, rows, time.monotonic())
        with self._changed:
            if self._closing:
                raise RuntimeError("this batcher was closed")
            self._queues.setdefault(kind, deque()).append(request)
            self._changed.notify()
        return request.future

    @property
    def waiting(self) -> int:
        """Rows that are in no batch yet."""
        with self._changed:
            return sum(
                len(one.rows) - one.taken for queue in self._queues.values() for one in queue
            )

    def close(self) -> None:
        """Finish what was submitted, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._run_batch(batch)

    def _next_batch(self) -> list[_Part] | None:
        """The next one, once it is due; None at the end."""
        with self._changed:
            while True:
                queue = min(
                    filter(None, self._queues.values()), key=lambda one: one[0].since, default=None
                )
                if queue is None:
                    if self._closing:
                        return None
                    self._changed.wait()
                    continue
                left = queue[0].since + self._wait_seconds - time.monotonic()
                if left > 0 and not self._closing and not self._is_full(queue):
                    self._changed.wait(left)
                elif batch := self._take(queue):
                    return batch

    def _is_full(self, queue: deque[_Request]) -> bool:
        rows = 0
        for request in queue:
            rows += len(request.rows) - request.taken
            if rows >= self._most_rows:
                return True
        return False

    def _take(self, queue: deque[_Request]) -> list[_Part]:
        """The parts of a batch; none where all that waited was cancelled."""
        batch, room = list[_Part](), self._most_rows
        while queue and room:
            request = queue.popleft()
            if not request.taken and not request.future.set_running_or_notify_cancel():
                continue
            start = request.taken
            request.taken = min(start + room, len(request.rows))
            batch.append(_Part(request, start, request.taken))
            room -= request.taken - start
            if request.taken < len(request.rows):
                request.since = time.monotonic()
                queue.append(request)  # which ends the batch, since there is no room left
        return batch

    def _run_batch(self, batch: list[_Part]) -> None:
        started, kind = time.monotonic(), batch[0].request.kind
        try:
            rows = np.concatenate([part.rows for part in batch])
            results = self._run(kind, rows)
            if len(results) != len(rows):
                raise RuntimeError(f"{len(rows)} {kind} gave {len(results)} results")
        except Exception as error:  # the thread goes on, whatever one batch does
            self._fail(batch, error)
            return
        self._on_batch(kind, len(rows), time.monotonic() - started)
        first = 0
        for part in batch:
            request, count = part.request, part.stop - part.start
            request.parts.append(results[first : first + count])
            first += count
            if part.stop == len(request.rows):
                request.future.set_result(np.concatenate(request.parts))

    def _fail(self, batch: list[_Part], error: Exception) -> None:
        for part in batch:
            with self._changed:
                if part.stop < len(part.request.rows):
                    self._queues[part.request.kind].remove(part.request)
            part.request.future.set_exception(error)
