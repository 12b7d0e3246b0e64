"""How work reports its progress: callables that whoever started it passes in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from fomo_dagster.stopping import check

T = TypeVar("T")


class Progress(Protocol):
    """Called again and again while work continues."""

    def __call__(self, what: str, done: int, total: int, detail: str = "") -> None:
        """`done` of `total` units of `what` are finished; `detail` is a short text beside it."""


def no_progress(what: str, done: int, total: int, detail: str = "") -> None:
    """Tells nobody."""


class Steps(Protocol):
    """Called with the figures of a training's steps as they become known, at least once for each
    step. A resumed training begins with the steps that it already has."""

    def __call__(self, asset: str, digest: str, rows: Sequence[Mapping[str, float]]) -> None:
        """digest: of the recipe; rows: by the names of the table `training_steps`."""


def ignore_steps(asset: str, digest: str, rows: Sequence[Mapping[str, float]]) -> None:
    """Tells nobody."""


def ignore_text(text: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Whom work reports to; by default nobody.

    waiting: told what this process waits for. warn: told what the user should hear.
    """

    progress: Progress = no_progress
    steps: Steps = ignore_steps
    waiting: Callable[[str], None] = ignore_text
    warn: Callable[[str], None] = ignore_text


def heeding(callbacks: Callbacks) -> Callbacks:
    """The same, but that telling progress stops work that was asked to stop, as `check` does."""

    def progress(what: str, done: int, total: int, detail: str = "") -> None:
        check()
        callbacks.progress(what, done, total, detail)

    return replace(callbacks, progress=progress)


class Channel(Protocol):
    """How launched processes report what they do."""

    def __call__(
        self, folder: Path, callbacks: Callbacks
    ) -> AbstractContextManager[Mapping[str, str]]:
        """Open within; gives the environment variables by which they find it."""


def with_progress(items: Iterable[T], what: str, total: int, progress: Progress) -> Iterator[T]:
    """The items, of which there are `total`; each is finished when the next one is asked for."""
    for done, item in enumerate(items, start=1):
        yield item
        progress(what, done, total)
