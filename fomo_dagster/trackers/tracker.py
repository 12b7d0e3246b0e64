"""What a tracker is, and what it is sent: the numbers of the tables, as series over steps.

Trackers take no part in any computation, and nothing of them enters an identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Point:
    """A value of a series. series: parts of letters, digits, `_`, `-` and `.`, joined by `/`; step:
    of a training, or else the stage."""

    series: str
    step: int
    value: float


@dataclass(frozen=True)
class Entry:
    """What an asset states, or some steps of it. A run has each step of a key once.

    digest: what the asset was made as. A run holds one digest for a key. parameters: values that
    belong to the run as a whole, such as digests.
    """

    key: str
    digest: str
    points: tuple[Point, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """What a tracker shows as one run. configuration: plain data, nested."""

    name: str
    configuration: Mapping[str, Any]


class OpenRun(Protocol):
    """A run that is being sent to."""

    @property
    def id(self) -> str:
        """What the tracker finds the run by when it is opened again."""

    def log(self, points: Sequence[Point], parameters: Mapping[str, str]) -> None:
        """Send. Once it returns, the end of this process loses nothing of it."""

    def close(self) -> None:
        """Finish: everything was sent, and nothing more comes."""


class Tracker(Protocol):
    """Where runs are sent to. Creating it, and any of its methods, may fail or hang."""

    @property
    def destination(self) -> str:
        """What tells this place from another, such as a folder or an address."""

    @property
    def place(self) -> str:
        """The folder or address that runs are sent to, as a person names it."""

    def open(self, run: Run, earlier: str | None, sent: int) -> OpenRun:
        """Continue the run whose id is `earlier`, or begin one if it no longer exists.

        sent: how many points it was sent before.
        """


@dataclass(frozen=True)
class Version:
    """A release, as a registry holds it. source: what finds its weights; tags: what it is."""

    number: int
    source: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Model:
    """What was ever live under a release name. aliases: → number, `live` among them. removed:
    aliases that were given once, and stand for nothing now."""

    name: str
    versions: tuple[Version, ...]
    aliases: Mapping[str, int]
    removed: tuple[str, ...] = ()


@runtime_checkable
class Registry(Protocol):
    """A tracker that also registers releases."""

    def register(self, model: Model) -> None:
        """Bring what it has of a name up to date: add the versions that are missing, move
        aliases, and take away those that were removed. Bears to be done again."""


def flat(configuration: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, the names joined by dots."""
    found: dict[str, Any] = {}
    for name, value in configuration.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
