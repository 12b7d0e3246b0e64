"""The answers of methods, read from the predictions of their replicates."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import polars as pl

from fomo_dagster.errors import InputError
from fomo_dagster.home import Home
from fomo_dagster.statistics.answers import Answers
from fomo_dagster.tables.members import Member, Members, members_of
from fomo_dagster.tables.predictions import QUERY, read_predictions
from fomo_dagster.tables.selects import quoted
from fomo_dagster.tables.views import query

_COMMON = "--common (`common: true` in a comparison's file)"
_OF_SAMPLES = ("subset", "seed")
"""The parameters of an evaluation that say which test samples it takes."""
_MEMBERS = """
SELECT experiment, replicate, replicate_of, settings FROM experiments
WHERE replicate_of = {method} OR experiment = {method}
"""


@dataclass(frozen=True)
class Methods:
    """Methods that can be compared. answers: method → dataset → answers, of the same queries and
    replicates; replicates: their labels; remarks: what was left out, and what else to know."""

    answers: Mapping[str, Mapping[str, Answers]]
    roles: Mapping[str, str]
    replicates: Sequence[str]
    remarks: Sequence[str]


def read_methods(home: Home, declared: Mapping[str, Members], *, common: bool = False) -> Methods:
    """The answers of methods at their last stages, paired query by query and replicate by
    replicate. declared: method → its experiments.

    Raises `InputError`, with what differs, if their datasets, prompts, test samples or replicates
    do; with `common` what they share is taken, if there is anything.
    """
    methods, members = list(declared), _alone_together(declared)
    shared = _shared(
        {m: set(found) for m, found in members.items()}, "replicates", common=common,
        way_out=": declare the same `replicates` for all, or name one replicate of each, such as "
        + next((one.experiment for m in members.values() if len(m) > 1 for one in m.values()), ""),
    )  # fmt: skip
    labels = [label for label in members[methods[0]] if label in shared.kept]
    _check_seeds(members, labels)
    experiments = {m: [found[label].experiment for label in labels] for m, found in members.items()}
    last = {one.experiment: one.stage for found in members.values() for one in found.values()}
    remarks = list(shared.left_out)
    read = {
        experiment: read_predictions(home, experiment, last[experiment])
        for names in experiments.values()
        for experiment in names
    }
    stages = {found.experiment: found.stage for found in read.values()}
    if len(set(stages.values())) > 1:
        remarks.append("other stages: " + ", ".join(f"{name} at {t}" for name, t in stages.items()))
    settings = {name: _settings(home, name, found.stage) for name, found in read.items()}
    remarks += _same_twice(home, experiments, stages)
    datasets = _shared(
        {name: set(found) for name, found in settings.items()}, "datasets", common=common
    )
    remarks += datasets.left_out
    answers: dict[str, dict[str, Answers]] = {method: {} for method in methods}
    for dataset in sorted(datasets.kept):
        otherwise = _otherwise(dataset, {name: settings[name][dataset] for name in read})
        if otherwise is not None and not common:
            raise InputError(f"{otherwise.sentence}; {_COMMON} compares what is evaluated alike")
        if otherwise is not None and not otherwise.in_samples_alone:
            remarks.append(f"left out: {otherwise.sentence}")
            continue
        frames = {name: found.rows.filter(dataset=dataset) for name, found in read.items()}
        keys = _common_queries(dataset, frames, common=common)
        most = max(frame.height for frame in frames.values())
        if keys.height < most:
            remarks.append(f"left out: {most - keys.height} queries of {dataset}")
        for method, names in experiments.items():
            answers[method][dataset] = _answers([frames[name] for name in names], keys)
    if not answers[methods[0]]:
        raise InputError(f"{', '.join(methods)} have no dataset in common that is evaluated alike")
    roles = _roles(home, experiments[methods[0]][0])
    return Methods(answers, {name: roles[name] for name in answers[methods[0]]}, labels, remarks)


def members_there(home: Home, method: str) -> Members:
    """The experiments of a method, as the tables have them. A method is an experiment, or what its
    replicates are of. Raises `InputError` where these differ in more than seeds."""
    rows = query(home.root, _MEMBERS.format(method=quoted(method))).sort("replicate").to_dicts()
    return members_of(method, rows) if rows else {"": Member(method, {})}


def _alone_together(members: Mapping[str, Members]) -> Mapping[str, Members]:
    """Where each method is one experiment, they are paired whatever their seeds are called."""
    if any(len(found) > 1 for found in members.values()):
        return members
    return {method: {"": next(iter(found.values()))} for method, found in members.items()}


def _check_seeds(members: Mapping[str, Members], labels: Sequence[str]) -> None:
    """Raises `InputError` where replicates of one name do not vary the same seeds."""
    first, *others = members
    for label, other in itertools.product(labels if len(labels) > 1 else (), others):
        one, two = members[first][label].seeds, members[other][label].seeds
        if different := [key for key in one if one[key] != two[key]]:
            said = ", ".join(f"{key} {one[key]} and {two[key]}" for key in different)
            raise InputError(
                f"{label} of {first} and of {other} are other replicates ({said}): `vary` the same "
                "in both"
            )


@dataclass(frozen=True)
class _Shared:
    kept: set[str]
    left_out: list[str]


def _shared(sets: Mapping[str, set[str]], what: str, *, common: bool, way_out: str = "") -> _Shared:
    """What all have in common. Raises `InputError` where some have more, unless `common`."""
    kept = reduce(set.intersection, sets.values())
    more = {name: _listed(found - kept) for name, found in sets.items() if found - kept}
    said = [f"{what} of {name} alone: {extra}" for name, extra in more.items()]
    if not kept:
        told = "; ".join(f"{name}: {_listed(one)}" for name, one in sets.items())
        raise InputError(f"no {what} in common: {told}{way_out}")
    if more and not common:
        raise InputError(f"{'; '.join(said)}: {_COMMON} compares what all have")
    return _Shared(kept, [f"left out: {sentence}" for sentence in said])


def _same_twice(
    home: Home, experiments: Mapping[str, Sequence[str]], stages: Mapping[str, int]
) -> list[str]:
    """A sentence for each two replicates of a method with the very same evaluations."""
    said = []
    for names in experiments.values():
        seen: dict[str, str] = {}
        for name in names:
            head = home.heads.read(f"{name}/evaluation_{stages[name]:03d}")
            digest = head.digest if head is not None else name
            if digest in seen:
                said.append(
                    f"{name} counts, though it is {seen[digest]}: their seeds change nothing"
                )
            seen.setdefault(digest, name)
    return said


def _listed(names: set[str]) -> str:
    return ", ".join(name or "one run" for name in sorted(names)) or "none"


def _settings(home: Home, experiment: str, stage: int) -> dict[str, Any]:
    """Dataset → the parameters of its evaluation."""
    head = home.heads.read(f"{experiment}/evaluation_{stage:03d}")
    assert head is not None
    return {name: recipe["parameters"] for name, recipe in head.recipes.items()}


@dataclass(frozen=True)
class _Otherwise:
    """How two experiments evaluate a dataset otherwise. in_samples_alone: whether they differ in
    nothing but which test samples they take, so that those of both can be compared."""

    sentence: str
    in_samples_alone: bool


def _otherwise(dataset: str, parameters: Mapping[str, Mapping[str, Any]]) -> _Otherwise | None:
    """parameters: experiment → those of its evaluation. None where all are the same."""
    first, *others = parameters
    for leave_out in (_OF_SAMPLES, ()):  # what else differs comes first

        def kept(name: str, leave_out: Sequence[str] = leave_out) -> dict[str, Any]:
            return {key: v for key, v in parameters[name].items() if key not in leave_out}

        for name in others:
            if kept(name) != kept(first):
                said = _difference(kept(first), kept(name))
                sentence = f"{dataset} is evaluated otherwise by {first} and {name}: {said}"
                return _Otherwise(sentence, in_samples_alone=not leave_out)
    return None


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
                f"{_COMMON} compares these"
            )
        keys = both
    if keys.is_empty():
        raise InputError(f"{', '.join(frames)} share no test sample of {dataset}")
    return keys.sort(*QUERY, nulls_last=False)


def answers_of(dataset: str, frames: Sequence[pl.DataFrame]) -> list[Answers]:
    """The answers of several models to the same queries of a dataset, one each. Raises `InputError`
    where some were asked others."""
    named = {f"the {place}. model": frame for place, frame in enumerate(frames, 1)}
    keys = _common_queries(dataset, named, common=False)
    return [_answers([frame], keys) for frame in frames]


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
