"""Handles requests to stop, at a point where nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from fomo_dagster.stopping import SECONDS_OF_ONE_REQUEST

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def leave_terminal() -> None:
    """Let what is printed go nowhere instead of to a terminal: that it is closed is what SIGHUP
    tells, before or after to write to it becomes an error. Dagster keeps descriptors of its own."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in map(int, os.listdir("/dev/fd")):
        if _is_terminal(descriptor):
            os.dup2(nowhere, descriptor, inheritable=descriptor < 3)
    os.close(nowhere)


def _is_terminal(descriptor: int) -> bool:
    """As `os.isatty`, also of one that is closed."""
    try:
        return os.readlink(f"/dev/fd/{descriptor}").startswith(("/dev/pts/", "/dev/tty"))
    except OSError:  # closed since it was listed, or a system whose /dev/fd has no links
        return os.isatty(descriptor)


class Interruption:
    """Within it, SIGINT, SIGTERM and SIGHUP are noted instead of ending the work at once.

    The work looks at `received` where it can stop. A second signal raises `KeyboardInterrupt` where
    it stands, but not within a second: a supervisor may tell every process, and one that started
    others tells them again. Signals that the process ignores stay ignored. Outside the main thread
    Python lets nobody handle signals: `received` then stays None.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        """The name of the signal, once there was one."""
        self._received_at = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def number(self) -> int:
        """The number of that signal; 0 where there was none."""
        return signal.Signals[self.received] if self.received is not None else 0

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            leave_terminal()
        if self.received is None:
            self.received, self._received_at = signal.Signals(number).name, time.monotonic()
        elif time.monotonic() - self._received_at > SECONDS_OF_ONE_REQUEST:
            raise KeyboardInterrupt

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            # None stands for a handler that was not Python's, which cannot be put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self.received is not None and error is None:
            raise KeyboardInterrupt(self.received)  # it came too late for the work to see
