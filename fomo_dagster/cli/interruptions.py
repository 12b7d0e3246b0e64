"""Ctrl-C and SIGTERM of a command: which signal it was, and the exit status that says so."""

from __future__ import annotations

import os
import signal
from types import TracebackType
from typing import Any


class StoppedError(Exception):
    """A command was asked to stop, and did. Its exit status is the shell's: 128 + the signal."""

    def __init__(self, number: signal.Signals, message: str) -> None:
        super().__init__(message)
        self.status = 128 + number


class Signals:
    """Within it, SIGTERM raises `KeyboardInterrupt` as SIGINT does, and both are written down.

    Dagster and the training loop handle signals themselves while they run, each in turn. What they
    make of one does not always tell which it was; the interpreter's own record here does. For the
    main thread.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._previous: Any = None
        self._previous_descriptor = -1

    def __enter__(self) -> Signals:
        self._read, self._write = os.pipe()
        for descriptor in (self._read, self._write):
            os.set_blocking(descriptor, False)
        self._previous_descriptor = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._previous = signal.getsignal(signal.SIGTERM)
        if self._previous is not signal.SIG_IGN:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._previous is not None:  # None: a handler that was not Python's, left replaced
            signal.signal(signal.SIGTERM, self._previous)
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
            if self._received is None and number in (signal.SIGINT, signal.SIGTERM):
                self._received = signal.Signals(number)
        return self._received
