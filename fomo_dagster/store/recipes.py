"""Recipes: everything that decides an artifact's numbers, and how two of them differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fomo_dagster.store.digests import canonical, digest_of


@dataclass(frozen=True)
class Recipe:
    """What an artifact is a function of.

    kind: the sort of artifact, for example `trained`.
    version: the code version of the component that makes it; raised when its numbers change.
    parameters: plain data that changes the numbers; nothing else belongs here.
    inputs: role → digest (or plain data of digests) of what it is made from.
    earlier: the recipe of the same before there was another way to make it; see `settled`.
    """

    kind: str
    version: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    earlier: Recipe | None = field(default=None, compare=False, repr=False)

    @cached_property
    def digest(self) -> str:
        """The artifact's address; raises where a value has no canonical form."""
        # That of `as_data`, which would go through all values a second time.
        return digest_of(
            {"kind": self.kind, "version": self.version, "parameters": self.parameters,
             "inputs": self.inputs}
        )  # fmt: skip

    def as_data(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "version": self.version,
            "parameters": canonical(self.parameters),
            "inputs": canonical(self.inputs),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Recipe:
        return cls(data["kind"], data["version"], data["parameters"], data["inputs"])


@dataclass(frozen=True)
class Difference:
    """One value that two recipes do not share; `path` names it from the recipe's top."""

    path: tuple[str, ...]
    old: Any
    new: Any

    def __str__(self) -> str:
        name = ".".join(self.path[1:]) or self.path[0]
        return f"{name} {_short(self.old)} → {_short(self.new)}"


def differences(old: Recipe, new: Recipe) -> list[Difference]:
    """What changed between two recipes, in canonical order; empty when their digests agree."""
    return list(_differences((), old.as_data(), new.as_data()))


_ABSENT = object()


def _differences(path: tuple[str, ...], old: Any, new: Any) -> Iterator[Difference]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences((*path, key), old.get(key, _ABSENT), new.get(key, _ABSENT))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _differences((*path, str(index)), a, b)
    elif old is _ABSENT or new is _ABSENT or old != new:
        yield Difference(path, old, new)


def _short(value: Any) -> str:
    if value is _ABSENT:
        return "(none)"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else text[:37] + "…"
