"""How work that goes on in threads is asked to stop: signals reach the main thread alone."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


class Stop:
    """A request to stop, for the threads that work within `heeded`.

    A thread that looks at `received` itself stops where nothing is lost; `KeyboardInterrupt` is
    raised in the others, wherever Python can.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        """The name of the signal, once there was one."""
        self._lock = threading.Lock()
        self._threads: dict[int, bool] = {}  # by number: whether it looks by itself

    def request(self, signal: str) -> None:
        """Ask all threads to stop; of several requests the first counts."""
        with self._lock:
            if self.received is not None:
                return
            self.received = signal
            for thread, looks in self._threads.items():
                if not looks:
                    _interrupt(thread)

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Within it, this thread can be asked to stop."""
        thread = threading.get_ident()
        with self._lock:
            if self.received is not None:
                raise KeyboardInterrupt(self.received)
            self._threads[thread] = False
        try:
            yield
        finally:
            with self._lock:
                del self._threads[thread]

    @contextmanager
    def looked_at(self) -> Iterator[None]:
        """Within it, this thread looks at `received` by itself."""
        thread = threading.get_ident()
        with self._lock:
            known = thread in self._threads
            if known:
                self._threads[thread] = True
        try:
            yield
        finally:
            with self._lock:
                if known:
                    self._threads[thread] = False


@cache
def stop_of(run: str) -> Stop:
    """The request of a run, by its id, in this process."""
    return Stop()


def _interrupt(thread: int) -> None:
    """Raise `KeyboardInterrupt` in a thread, at its next instruction of Python."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt)
    )
