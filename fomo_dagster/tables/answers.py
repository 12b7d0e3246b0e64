"""The answers of methods, read from the predictions of their replicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import polars as pl

from fomo_dagster.errors import InputError
from fomo_dagster.home import Home
from fomo_dagster.statistics.answers import Answers
from fomo_dagster.tables.predictions import QUERY, read_predictions
from fomo_dagster.tables.selects import quoted
from fomo_dagster.tables.views import query

_REPLICATES = """
SELECT experiment, replicate FROM experiments
WHERE coalesce(replicate_of, experiment) = {method} OR experiment = {method}
"""


@dataclass(frozen=True)
class Methods:
    """Methods that can be compared. answers: method → dataset → answers, of the same queries and
    replicates; replicates: their labels; left_out: what only some methods have, in words."""

    answers: Mapping[str, Mapping[str, Answers]]
    roles: Mapping[str, str]
    replicates: Sequence[str]
    left_out: Sequence[str]


def read_methods(home: Home, methods: Sequence[str], *, common: bool = False) -> Methods:
    """The answers of methods at their last stages, paired query by query and replicate by
    replicate. A method is an experiment, or what its replicates are of.

    Raises `InputError`, with what differs, if their datasets, prompts, test samples or replicates
    do; with `common` what they share is taken, if there is anything.
    """
    members = {method: _members(home, method) for method in methods}
    shared = _shared({m: set(found) for m, found in members.items()}, "replicates", common=common)
    labels = [label for label in members[methods[0]] if label in shared.kept]
    experiments = {m: [found[label] for label in labels] for m, found in members.items()}
    left_out = list(shared.left_out)
    read = {
        experiment: read_predictions(home, experiment)
        for names in experiments.values()
        for experiment in names
    }
    settings = {name: _settings(home, name, found.stage) for name, found in read.items()}
    datasets = _shared(
        {name: set(found) for name, found in settings.items()}, "datasets", common=common
    )
    left_out += datasets.left_out
    answers: dict[str, dict[str, Answers]] = {method: {} for method in methods}
    for dataset in sorted(datasets.kept):
        said = {name: settings[name][dataset] for name in read}
        if any(one != next(iter(said.values())) for one in said.values()):
            other = next(name for name in said if said[name] != next(iter(said.values())))
            refusal = (
                f"{dataset} is evaluated otherwise by {next(iter(said))} and {other}: "
                f"{_difference(next(iter(said.values())), said[other])}"
            )
            if not common:
                raise InputError(f"{refusal}; --common compares what is evaluated alike")
            left_out.append(refusal)
            continue
        frames = {name: found.rows.filter(dataset=dataset) for name, found in read.items()}
        keys = _common_queries(dataset, frames, common=common)
        most = max(frame.height for frame in frames.values())
        if keys.height < most:
            left_out.append(f"{most - keys.height} queries of {dataset}")
        for method, names in experiments.items():
            answers[method][dataset] = _answers([frames[name] for name in names], keys)
    if not answers[methods[0]]:
        raise InputError(f"{', '.join(methods)} have no dataset in common that is evaluated alike")
    roles = _roles(home, experiments[methods[0]][0])
    return Methods(answers, {name: roles[name] for name in answers[methods[0]]}, labels, left_out)


def _members(home: Home, method: str) -> dict[str, str]:
    """Replicate → experiment."""
    found = query(home.root, _REPLICATES.format(method=quoted(method)))
    if found.is_empty():
        return {"": method}
    return {replicate: experiment for experiment, replicate in found.sort("replicate").iter_rows()}


@dataclass(frozen=True)
class _Shared:
    kept: set[str]
    left_out: list[str]


def _shared(sets: Mapping[str, set[str]], what: str, *, common: bool) -> _Shared:
    """What all have in common. Raises `InputError` where some have more, unless `common`."""
    kept = reduce(set.intersection, sets.values())
    more = {
        name: ", ".join(sorted(found - kept) or ["none"])
        for name, found in sets.items()
        if found - kept
    }
    said = [f"{what} of {name} alone: {extra}" for name, extra in more.items()]
    if not kept:
        told = "; ".join(f"{name}: {', '.join(sorted(one))}" for name, one in sets.items())
        raise InputError(f"no {what} in common: {told}")
    if more and not common:
        raise InputError(f"{'; '.join(said)}: --common compares what all have")
    return _Shared(kept, said)


def _settings(home: Home, experiment: str, stage: int) -> dict[str, Any]:
    """Dataset → the parameters of its evaluation."""
    head = home.heads.read(f"{experiment}/evaluation_{stage:03d}")
    assert head is not None
    return {name: recipe["parameters"] for name, recipe in head.recipes.items()}


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return ", ".join(f"{name} {one.get(name)!r} and {other.get(name)!r}" for name in names)


def _common_queries(
    dataset: str, frames: Mapping[str, pl.DataFrame], *, common: bool
) -> pl.DataFrame:
    """The queries that all have, in order. Raises `InputError` where some have others, unless
    `common`, or where none is shared."""
    first, *others = frames
    keys = frames[first].select(*QUERY)
    for name in others:
        both = keys.join(frames[name].select(*QUERY), on=QUERY, how="semi", nulls_equal=True)
        if not common and (both.height < keys.height or both.height < frames[name].height):
            raise InputError(
                f"{first} and {name} were evaluated on other test samples of {dataset}: "
                f"{keys.height} and {frames[name].height}, {both.height} of them the same; "
                "--common compares these"
            )
        keys = both
    if keys.is_empty():
        raise InputError(f"{', '.join(frames)} share no test sample of {dataset}")
    return keys.sort(*QUERY, nulls_last=False)


def _answers(frames: Sequence[pl.DataFrame], keys: pl.DataFrame) -> Answers:
    rows = [
        keys.join(frame, on=QUERY, how="left", nulls_equal=True, maintain_order="left")
        for frame in frames
    ]
    return Answers(
        np.stack([one["correct"].to_numpy() for one in rows]),
        (keys["query"] == "caption").to_numpy(),
        (keys["key"].rank("dense") - 1).cast(pl.Int64).to_numpy(),
    )


def _roles(home: Home, experiment: str) -> dict[str, str]:
    asked = "SELECT DISTINCT dataset, role FROM evaluations WHERE experiment = "
    return dict(query(home.root, asked + quoted(experiment)).iter_rows())
