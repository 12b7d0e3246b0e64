"""Ctrl-C, SIGTERM and SIGHUP of a command: which it was."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

from fomo_dagster.training.interruption import STOPPING, leave_terminal

SECONDS_UNTIL_AGAIN = 0.05


class Signals:
    """Within it, SIGTERM raises `KeyboardInterrupt` as SIGINT does, SIGHUP (of a terminal that is
    closed) is taken for a SIGTERM, and all are written down. What is ignored, as SIGHUP under
    nohup, stays so.

    Python drops an exception that a signal raises while a finaliser or a callback of a weak
    reference runs, as it does thousands of times in an import. That signal is sent again.

    Dagster and the training loop handle signals themselves while they run, each in turn. What they
    make of one does not always tell which it was; the interpreter's own record here does. For the
    main thread.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}
        self._previous_descriptor = -1
        self._previous_hook = sys.unraisablehook
        self._again: threading.Timer | None = None

    def __enter__(self) -> Signals:
        self._read, self._write = os.pipe()
        for descriptor in (self._read, self._write):
            os.set_blocking(descriptor, False)
        self._previous_descriptor = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        handlers = {signal.SIGTERM: signal.default_int_handler, signal.SIGHUP: as_termination}
        for number, handler in handlers.items():
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, handler)
        self._previous_hook, sys.unraisablehook = sys.unraisablehook, self._dropped
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.unraisablehook = self._previous_hook
        if self._again is not None:
            self._again.cancel()
        for number, handler in self._previous.items():
            if handler is not None:  # None: a handler that was not Python's, left replaced
                signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_descriptor)
        os.close(self._read)
        os.close(self._write)

    @property
    def received(self) -> signal.Signals | None:
        """The first signal that asked to stop, or None."""
        try:
            numbers = os.read(self._read, 4096)
        except BlockingIOError:
            numbers = b""
        for number in numbers:
            if self._received is None and number in STOPPING:
                self._received = signal.Signals(number)
        return self._received

    def _dropped(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Send the signal again, once the callback is over, where its exception was dropped."""
        number = None if issubclass(unraisable.exc_type, Exception) else self.received
        if number is None:
            self._previous_hook(unraisable)
            return
        self._again = threading.Timer(SECONDS_UNTIL_AGAIN, os.kill, (os.getpid(), number))
        self._again.daemon = True
        self._again.start()


def as_termination(number: int, frame: FrameType | None) -> None:
    """Handle SIGHUP as Dagster handles SIGTERM: it has no handler of its own for it."""
    leave_terminal()
    signal.raise_signal(signal.SIGTERM)
