"""How long work tells that it goes on: one callable, given to it by whoever started it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called again and again while work goes on."""

    def __call__(self, what: str, done: int, total: int, detail: str = "") -> None:
        """`done` of `total` units of `what` are finished; `detail` is a short text beside it."""


def silent(what: str, done: int, total: int, detail: str = "") -> None:
    """Tells nobody."""
