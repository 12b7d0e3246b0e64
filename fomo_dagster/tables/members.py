"""The experiments that a method consists of: its replicates, or the one that it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.sweeping import SEEDS

# What seeds tell apart has names of its own.
NAMED_BY_SEEDS = ("stream.name", "backbone.name", "pretraining_pool.name")


@dataclass(frozen=True)
class Member:
    """An experiment. seeds: dotted key → seed, of those that replicates may differ in. stage: of
    its weights that count; None: the last one that was evaluated."""

    experiment: str
    seeds: Mapping[str, Any]
    stage: int | None = None


Members = Mapping[str, Member]
"""Replicate → experiment."""


def members_of(method: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Member]:
    """The experiments of a method. rows: of the table `experiments`, its replicates or itself.

    Raises `InputError` where replicates differ in more than seeds.
    """
    of_method = [row for row in rows if row["replicate_of"] == method] or rows
    found: dict[str, Member] = {}
    first = None
    for row in of_method:
        settings = json.loads(row["settings"])
        seeds = {key: _taken(settings, key.split(".")) for key in SEEDS.values()}
        for name in NAMED_BY_SEEDS:
            _taken(settings, name.split("."))
        found[row["replicate"]] = Member(row["experiment"], seeds)
        first = first or settings
        keys = {**first, **settings}
        if different := [key for key in keys if first.get(key) != settings.get(key)]:
            raise InputError(
                f"{of_method[0]['experiment']} and {row['experiment']} differ in "
                f"{', '.join(different)}, and so are no replicates: `fomo run {method}` brings all "
                "up to date"
            )
    return found


def _taken(settings: dict[str, Any], path: list[str]) -> Any:
    """What stands at a dotted key, which is taken out."""
    inner: Any = settings
    for part in path[:-1]:
        inner = inner.get(part) if isinstance(inner, dict) else None
    return inner.pop(path[-1], None) if isinstance(inner, dict) else None
