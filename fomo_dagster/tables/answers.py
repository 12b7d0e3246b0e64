"""The answers of methods, read from the predictions of their replicates."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from fomo_dagster.errors import InputError
from fomo_dagster.home import Home
from fomo_dagster.statistics.answers import Answers
from fomo_dagster.tables.evaluated_alike import COMMON, alike, evaluated, shared
from fomo_dagster.tables.members import Member, Members, members_of
from fomo_dagster.tables.predictions import QUERY, read_predictions
from fomo_dagster.tables.selects import quoted
from fomo_dagster.tables.views import query

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

    Raises `InputError`, with what differs, if their replicates or datasets do, or how they evaluate
    one: prompts, classes, test samples, role. With `common` what they share is taken, if there is
    anything.
    """
    methods, members = list(declared), _alone_together(declared)
    replicates = shared(
        {m: set(found) for m, found in members.items()}, "replicates", common=common,
        way_out=": declare the same `replicates` for all, or name one replicate of each, such as "
        + next((one.experiment for m in members.values() if len(m) > 1 for one in m.values()), ""),
    )  # fmt: skip
    labels = [label for label in members[methods[0]] if label in replicates.kept]
    _check_seeds(members, labels)
    experiments = {m: [found[label].experiment for label in labels] for m, found in members.items()}
    last = {one.experiment: one.stage for found in members.values() for one in found.values()}
    remarks = list(replicates.left_out)
    read = {
        experiment: read_predictions(home, experiment, last[experiment])
        for names in experiments.values()
        for experiment in names
    }
    stages = {found.experiment: found.stage for found in read.values()}
    if len(set(stages.values())) > 1:
        remarks.append("other stages: " + ", ".join(f"{name} at {t}" for name, t in stages.items()))
    remarks += _same_twice(home, experiments, stages)
    roles = _roles(home, stages)
    deciding = {
        name: {
            dataset: settings | {"role": roles[name].get(dataset)}
            for dataset, settings in evaluated(home, name, stage).items()
        }
        for name, stage in stages.items()
    }
    datasets = alike(deciding, common=common)
    remarks += datasets.left_out
    answers: dict[str, dict[str, Answers]] = {method: {} for method in methods}
    for dataset in sorted(datasets.kept):
        frames = {name: found.rows.filter(dataset=dataset) for name, found in read.items()}
        keys = _common_queries(dataset, frames, common=common)
        most = max(frame.height for frame in frames.values())
        if keys.height < most:
            remarks.append(f"left out: {most - keys.height} queries of {dataset}")
        for method, names in experiments.items():
            answers[method][dataset] = _answers([frames[name] for name in names], keys)
    of_all = roles[experiments[methods[0]][0]]
    return Methods(answers, {name: of_all[name] for name in answers[methods[0]]}, labels, remarks)


def members_there(home: Home, method: str, experiments: Collection[str] = ()) -> Members:
    """The experiments of a method, as the tables have them. A method is an experiment, or what its
    replicates are of. experiments: those of them that count; by default all.

    Raises `InputError` where these differ in more than seeds, and where one that counts has no
    scores though others have.
    """
    rows = query(home.root, _MEMBERS.format(method=quoted(method))).sort("replicate")
    if experiments:
        rows = rows.filter(pl.col("experiment").is_in(list(experiments)))
    if rows.is_empty():
        return {"": Member(next(iter(experiments), method), {})}
    if missing := [name for name in experiments if name not in rows["experiment"]]:
        raise InputError(
            f"{', '.join(missing)} of {method} have no scores yet: `fomo run {missing[0]}` "
            "computes them"
        )
    return members_of(method, rows.to_dicts())


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
                f"{COMMON} compares these"
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


def _roles(home: Home, stages: Mapping[str, int]) -> dict[str, dict[str, str]]:
    """Experiment → dataset → its role. stages: experiment → that of its evaluation."""
    listed = ", ".join(map(quoted, stages))
    rows = query(
        home.root,
        "SELECT DISTINCT experiment, stage, dataset, role FROM evaluations "
        f"WHERE experiment IN ({listed})",
    )
    found: dict[str, dict[str, str]] = {name: {} for name in stages}
    for experiment, stage, dataset, role in rows.iter_rows():
        if stage == stages[experiment]:
            found[experiment][dataset] = role
    return found
