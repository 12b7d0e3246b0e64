"""Reads and checks a source's images in several processes, in order and in little memory.

A fault of an image is a result here, not an error. A fault of the source is an error.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple, Protocol, TypeVar

from fomo_dagster.data.decoding import DEFAULT, Decoding
from fomo_dagster.data.images import MAX_PIXELS, Seen, UnreadableImageError, checked
from fomo_dagster.data.sources.source import Source
from fomo_dagster.errors import DataError

IMAGES_PER_TASK = 16
PATIENCE_SECONDS = 1.0  # of reading that starting processes is not worth
TASKS_PER_WORKER = 3  # under way at once: enough to keep all busy, few enough to fit in memory


class Stored(NamedTuple):
    """An image as it will be stored and what was found in it, or the reason why it cannot be
    stored."""

    data: bytes
    extension: str
    seen: Seen = Seen()
    reason: str | None = None


T = TypeVar("T")


class Work(Protocol[T]):
    """What is done with each image; picklable, so that processes can do it."""

    def of(self, references: list[str]) -> list[T]:
        """A result an image, in order."""
        ...


class Reading(NamedTuple):
    """Everything that a process needs to read images for storing."""

    source: Source
    resize: int | None = None
    max_pixels: int = MAX_PIXELS
    decoding: Decoding = DEFAULT

    def of(self, references: list[str]) -> list[Stored]:
        """The images, in order. Raises `DataError` if the source cannot give one."""
        return [self._one(reference) for reference in references]

    def _one(self, reference: str) -> Stored:
        try:
            data = self.source.read(reference)
            return Stored(*checked(data, self.resize, self.max_pixels, self.decoding))
        except UnreadableImageError as error:
            return Stored(b"", "", reason=str(error))


def read_in_order(
    reading: Work[T], references: list[str], workers: int
) -> Generator[T, None, None]:
    """What `reading` makes of each image in order of `references`, by `workers` processes, few at a
    time in memory.

    Processes are started only once it is clear that they are worth it.
    """
    tasks = [
        references[first : first + IMAGES_PER_TASK]
        for first in range(0, len(references), IMAGES_PER_TASK)
    ]
    started = time.monotonic()
    for done, task in enumerate(tasks):
        needed = (time.monotonic() - started) / done * (len(tasks) - done) if done else 0.0
        if min(workers, len(tasks) - done) > 1 and needed >= PATIENCE_SECONDS:
            yield from _read_by_processes(reading, tasks[done:], workers)
            return
        yield from reading.of(task)


def _read_by_processes(
    reading: Work[T], tasks: list[list[str]], workers: int
) -> Generator[T, None, None]:
    workers = min(workers, len(tasks))
    methods = multiprocessing.get_all_start_methods()
    # Never fork: the threads of whoever calls may hold locks that a forked child waits on for ever.
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (reading,)) as processes:
        under_way: deque[Future[list[T]]] = deque()
        try:
            for task in tasks:
                under_way.append(processes.submit(_read, task))
                if len(under_way) == workers * TASKS_PER_WORKER:
                    yield from under_way.popleft().result()
            while under_way:
                yield from under_way.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                "a process that reads images was killed, probably for lack of memory: run again "
                "with fewer processes, or on a machine with more memory"
            ) from error
        finally:
            processes.shutdown(cancel_futures=True)


_reading: Work[Any] | None = None  # of a worker process; sent once, not with every task


def _start_worker(reading: Work[Any]) -> None:
    global _reading
    _reading = reading
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal's, for all of its processes
        signal.signal(number, signal.SIG_IGN)  # they are the parent's, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's worker would wait for tasks for ever where its parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _read(references: list[str]) -> list[Any]:
    assert _reading is not None
    return _reading.of(references)
