"""What assets tell each other: data versions and plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.recipes import Recipe

ONLY = "only"  # the artifact's name where a node has one


@dataclass(frozen=True)
class Facts:
    """What others need to know of a node: its data version, and plain data by name.

    awaited: only in a plan, and empty but where the content can be known only once an asset, whose
    key this is, was made. The data version is then one that nothing real has.
    """

    data_version: str
    details: Mapping[str, Any] = field(default_factory=dict)
    awaited: str = ""


FactsByKey = Mapping[str, Facts]


def identity(recipes: Mapping[str, Recipe]) -> str:
    """The digest of a node's recipes together: of its only one, where there is one."""
    if recipes.keys() == {ONLY}:
        return recipes[ONLY].digest
    return digest_of({name: recipe.digest for name, recipe in recipes.items()})
