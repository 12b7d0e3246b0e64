"""The errors that this project raises on purpose, and the helper that suggests a name.

Each message names the thing, its value, what was expected and the way out. Commands print such an
error without a traceback and exit with status 1 (2 for bad input).
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable

from fomo_dagster.texts import as_text


class FomoError(Exception):
    """Base of every error that this project raises deliberately.

    Its message can be printed and stored anywhere, whatever names it quotes.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(as_text(message))


class InputError(FomoError):
    """A file, a setting or an argument that the user gave is wrong."""


class DataError(FomoError):
    """Images, captions or weights that are not what their declaration says."""


class StoreError(FomoError):
    """An artifact could not be written, read or verified."""


class TrainingError(FomoError):
    """A training could not continue. Its last resume point is kept."""


class PeerError(FomoError):
    """Another process of the same training failed; the message says why."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A clause that names the valid names nearest to `name`, or all of them if none is near."""
    names = sorted(set(valid))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    if len(names) > 20:
        return f"there are {len(names)}, for example " + ", ".join(repr(n) for n in names[:5])
    return "valid: " + (", ".join(repr(n) for n in names) or "none")


class StoppedError(Exception):
    """A command was asked to stop, and did. Its exit status is the shell's: 128 + the signal."""

    def __init__(self, number: signal.Signals, message: str) -> None:
        super().__init__(message)
        self.signal = number.name
        self.status = 128 + number
