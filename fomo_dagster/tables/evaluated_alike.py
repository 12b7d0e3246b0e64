"""Which datasets experiments evaluate alike, so that their answers can be set side by side.

Alike are those with the same parameters, classes and test split, evaluated by the same code; in a
comparison by roles, those with the same role too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from fomo_dagster.data.pixel_rules import PARAMETER
from fomo_dagster.errors import InputError
from fomo_dagster.home import Home

COMMON = "--common (`common: true` in a comparison's file)"
_OF_SAMPLES = ("subset", "seed")
"""The parameters of an evaluation that say which test samples it takes."""
_WEIGHTS = "checkpoint"  # the one input in which experiments are to differ
_DIGESTS = {"concepts": "other classes", "test": "another test split"}  # input → what is said of it

Evaluated = Mapping[str, Mapping[str, Any]]
"""Dataset → all that decides its evaluation, but for the weights."""


def evaluated(home: Home, experiment: str, stage: int) -> dict[str, dict[str, Any]]:
    """As `Evaluated`, of an experiment's stage that was evaluated."""
    head = home.heads.read(f"{experiment}/evaluation_{stage:03d}")
    assert head is not None
    found = {}
    for name, recipe in head.recipes.items():
        inputs = {role: digest for role, digest in recipe["inputs"].items() if role != _WEIGHTS}
        found[name] = {**recipe["parameters"], **inputs, "version": recipe["version"]}
        found[name].pop(PARAMETER, None)  # a level here and there, in no direction
    return found


@dataclass(frozen=True)
class Shared:
    """What all have. left_out: a sentence for each thing that only some have."""

    kept: set[str]
    left_out: list[str]


def alike(experiments: Mapping[str, Evaluated], *, common: bool) -> Shared:
    """The datasets that all experiments evaluate alike, or on other samples of the same test split.

    Raises `InputError`, with what differs, if some have other datasets, or evaluate one otherwise;
    with `common` only if no dataset is left.
    """
    found = shared({name: set(one) for name, one in experiments.items()}, "datasets", common=common)
    for dataset in sorted(found.kept):
        otherwise = _otherwise(dataset, {name: one[dataset] for name, one in experiments.items()})
        if otherwise is None:
            continue
        if not common:
            raise InputError(f"{otherwise.sentence}; {COMMON} compares what is evaluated alike")
        if not otherwise.in_samples_alone:
            found.left_out.append(f"left out: {otherwise.sentence}")
            found.kept.remove(dataset)
    if not found.kept:
        raise InputError(
            f"{', '.join(experiments)} have no dataset in common that is evaluated alike"
            + "".join(f"; {said}" for said in found.left_out)
        )
    return found


def shared(sets: Mapping[str, set[str]], what: str, *, common: bool, way_out: str = "") -> Shared:
    """What all have in common. Raises `InputError` where some have more, unless `common`, or where
    there is nothing."""
    kept = reduce(set.intersection, sets.values())
    more = {name: _listed(found - kept) for name, found in sets.items() if found - kept}
    said = [f"{what} of {name} alone: {extra}" for name, extra in more.items()]
    if not kept:
        told = "; ".join(f"{name}: {_listed(one)}" for name, one in sets.items())
        raise InputError(f"no {what} in common: {told}{way_out}")
    if more and not common:
        raise InputError(f"{'; '.join(said)}: {COMMON} compares what all have")
    return Shared(set(kept), [f"left out: {sentence}" for sentence in said])


def _listed(names: set[str]) -> str:
    return ", ".join(name or "one run" for name in sorted(names)) or "none"


@dataclass(frozen=True)
class _Otherwise:
    """How two experiments evaluate a dataset otherwise. in_samples_alone: whether they differ in
    nothing but which test samples they take, so that those of both can be compared."""

    sentence: str
    in_samples_alone: bool


def _otherwise(dataset: str, of: Evaluated) -> _Otherwise | None:
    """of: experiment → what decides its evaluation. None where all are the same."""
    first, *others = of
    for leave_out in (_OF_SAMPLES, ()):  # what else differs comes first

        def kept(name: str, leave_out: tuple[str, ...] = leave_out) -> dict[str, Any]:
            return {key: v for key, v in of[name].items() if key not in leave_out}

        for name in others:
            if kept(name) != kept(first):
                said = _difference(kept(first), kept(name))
                sentence = f"{dataset} is evaluated otherwise by {first} and {name}: {said}"
                return _Otherwise(sentence, in_samples_alone=not leave_out)
    return None


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return ", ".join(
        _DIGESTS.get(name, f"{name} {one.get(name)!r} and {other.get(name)!r}") for name in names
    )
