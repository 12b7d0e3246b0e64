"""How work that goes on in threads is asked to stop: signals reach the main thread alone.

Nothing is raised in a thread from outside, as Python could: it may just have taken a lock, such as
logging's, that nobody would give back. Work asks, wherever it waits or tells its progress.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

SECONDS_OF_ONE_REQUEST = 1.0


class Stop:
    """A request to stop, for the threads that work within `heeded`."""

    def __init__(self) -> None:
        self.received: str | None = None
        """The name of the signal, once there was one."""
        self.is_insisted_on = False
        """Whether it was asked for again: processes that work are ended where they stand."""
        self._received_at = 0.0

    def request(self, signal: str) -> None:
        """Ask all threads to stop; of several requests the first is named. What comes within a
        second is the same one: a supervisor may tell every process, and they tell each other."""
        now = time.monotonic()
        if self.received is None:
            self.received, self._received_at = signal, now
        elif now - self._received_at >= SECONDS_OF_ONE_REQUEST:
            self.is_insisted_on = True

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Within it, `check` raises in this thread once this was requested."""
        token = _heeded.set(self)
        try:
            check()
            yield
        finally:
            _heeded.reset(token)


_heeded: ContextVar[Stop | None] = ContextVar("heeded", default=None)


_condition: ContextVar[Callable[[], None] | None] = ContextVar("condition", default=None)


def check() -> None:
    """Raise `KeyboardInterrupt` where the work of this thread was asked to stop; what the condition
    of `only_while` raises, where that no longer holds."""
    stop = _heeded.get()
    if stop is not None and stop.received is not None:
        raise KeyboardInterrupt(stop.received)
    check_condition()


def check_condition() -> None:
    """As `check`, of the condition alone."""
    condition = _condition.get()
    if condition is not None:
        condition()


@contextmanager
def only_while(condition: Callable[[], None]) -> Iterator[None]:
    """Within it, the work of this thread is of use only while `condition`, which is called often,
    raises nothing."""
    token = _condition.set(condition)
    try:
        yield
    finally:
        _condition.reset(token)


@cache
def stop_of(run: str) -> Stop:
    """The request of a run, by its id, in this process."""
    return Stop()
