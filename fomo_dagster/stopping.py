"""How work that goes on in threads is asked to stop: signals reach the main thread alone.

Nothing is raised in a thread from outside, as Python could: it may just have taken a lock, such as
logging's, that nobody would give back. Work asks, wherever it waits or tells its progress.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache


class Stop:
    """A request to stop, for the threads that work within `heeded`."""

    def __init__(self) -> None:
        self.received: str | None = None
        """The name of the signal, once there was one."""

    def request(self, signal: str) -> None:
        """Ask all threads to stop; of several requests the first counts."""
        self.received = self.received or signal

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


def check() -> None:
    """Raise `KeyboardInterrupt` where the work of this thread was asked to stop."""
    stop = _heeded.get()
    if stop is not None and stop.received is not None:
        raise KeyboardInterrupt(stop.received)


@cache
def stop_of(run: str) -> Stop:
    """The request of a run, by its id, in this process."""
    return Stop()
