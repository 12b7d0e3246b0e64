"""How a command ends: the exit status and the sentence of whatever ended it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal

from fomo_dagster.errors import FomoError, InputError, StoppedError
from fomo_dagster.paths import said_of


@dataclass(frozen=True)
class Ending:
    """outcome: it failed, or was asked to stop. kind: the class of the error."""

    outcome: Literal["failed", "stopped"]
    kind: str
    sentence: str
    status: int


def ending_of(error: BaseException) -> Ending | None:
    """How a command ends with this error; None for a fault of the program, with a traceback."""
    kind = type(error).__name__
    if isinstance(error, FomoError):
        return Ending("failed", kind, str(error), 2 if isinstance(error, InputError) else 1)
    if isinstance(error, StoppedError):
        return Ending("stopped", error.signal, str(error), error.status)
    if isinstance(error, KeyboardInterrupt):  # before anything handles signals
        return Ending("stopped", "SIGINT", "stopped by SIGINT", 128 + signal.SIGINT)
    if isinstance(error, BrokenPipeError):
        return None
    if isinstance(error, OSError) and error.errno is not None:
        # a fault of the machine that nothing within knew better of
        return Ending("failed", kind, said_of(error), 1)
    return None
