"""What assets tell each other: data versions and plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, TypeVar

from fomo_dagster.errors import StoreError
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.heads import Head
from fomo_dagster.store.recipes import Recipe

D = TypeVar("D", bound="Details")

ONLY = "only"  # the artifact's name where a node has one


@dataclass(frozen=True)
class Details:
    """What a kind of asset tells others besides its data version: plain data in typed fields.

    Each kind declares its own subclass, which heads hold as JSON.
    """

    def as_data(self) -> dict[str, Any]:
        """For a head; None is left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """From a head, which may have been written with older or newer fields."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known})


NOTHING = Details()


@dataclass(frozen=True)
class Facts:
    """What others need to know of a node.

    awaited: only in a plan, and empty but where the content can be known only once an asset, whose
    key this is, was made. The data version is then one that nothing real has.
    """

    data_version: str
    details: Details = NOTHING
    awaited: str = ""

    def of(self, kind: type[D]) -> D:
        """The details, which are of this type."""
        if not isinstance(self.details, kind):
            raise TypeError(f"{self.details!r} is no {kind.__name__}")
        return self.details


FactsByKey = Mapping[str, Facts]


def identity(recipes: Mapping[str, Recipe]) -> str:
    """The digest of a node's recipes together: of its only one, where there is one."""
    if recipes.keys() == {ONLY}:
        return recipes[ONLY].digest
    return digest_of({name: recipe.digest for name, recipe in recipes.items()})


_DETAILS: dict[str, type[Details]] = {}
"""Kind → the type of its details."""


def declare_details(kind: str, details: type[Details]) -> None:
    """Register what the heads of a kind hold."""
    _DETAILS[kind] = details


def facts_of(head: Head) -> Facts:
    """The facts that a head holds; raises `StoreError` if another version of this package wrote it
    with different fields."""
    try:
        return Facts(head.data_version, _DETAILS[head.kind].from_data(head.facts))
    except (KeyError, TypeError) as error:  # an unknown kind; a field that is missing
        raise StoreError(
            f"another version of fomo-dagster wrote the head of {head.asset}, of the "
            f"kind {head.kind!r} ({error}): materialise {head.asset} with this version"
        ) from error
