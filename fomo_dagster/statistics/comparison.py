"""A method against a baseline: differences of scores with intervals, dataset by dataset and over
all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from fomo_dagster.metrics import (
    GEOMETRIC_MEAN,
    KNOWLEDGE_ACCUMULATION,
    ZERO_SHOT_RETENTION,
    StageMetric,
)
from fomo_dagster.statistics.answers import Answers, Floats
from fomo_dagster.statistics.intervals import DRAWS, Interval, Method, Metric, intervals
from fomo_dagster.statistics.significance import (
    Pair,
    holm,
    mcnemar,
    pairwise,
    probability_of_improvement,
)


@dataclass(frozen=True)
class Scored:
    """A metric of two methods. value, baseline: means over the replicates."""

    name: str
    value: float
    baseline: float
    difference: Interval


@dataclass(frozen=True)
class OfDataset(Scored):
    """A dataset's score, of so many queries. p: of McNemar's exact test for one replicate of a
    classification dataset, else by Student's t; corrected: after Holm, for all datasets of the
    comparison."""

    role: str
    queries: int
    p: float
    corrected: float


@dataclass(frozen=True)
class Comparison:
    """A method against a baseline. improvement: the probability that a run of it is better than a
    run of the baseline on a dataset drawn at random."""

    method: str
    baseline: str
    replicates: int
    queries: int
    metrics: tuple[Scored, ...]
    datasets: tuple[OfDataset, ...]
    improvement: float


def compare(
    methods: Mapping[str, Method], roles: Mapping[str, str], baseline: str, *, seed: int = 0,
    draws: int = DRAWS,
) -> list[Comparison]:  # fmt: skip
    """Each method but the baseline against it. methods: name → dataset → answers, the same queries
    and replicates for all; roles: dataset → adaptation or held_out."""
    base = methods[baseline]
    return [
        _compared(name, baseline, method, base, roles, seed, draws)
        for name, method in methods.items()
        if name != baseline
    ]


def over_datasets(methods: Mapping[str, Method]) -> list[Pair]:
    """All pairs of methods by their mean scores of each dataset."""
    return pairwise({name: scores_of(method).mean(axis=0) for name, method in methods.items()})


def scores_of(method: Method) -> Floats:
    """(R, N), of R replicates on N datasets, in percent."""
    return np.stack([one.scores() for one in method.values()], axis=1)


def metrics_of(roles: Mapping[str, str]) -> dict[StageMetric, Metric]:
    """KA, ZS and GM, as far as there are datasets of their roles."""
    of = {
        role: [name for name, own in roles.items() if own == role]
        for role in ("adaptation", "held_out")
    }

    def mean(role: str) -> Metric:
        return lambda scores: np.mean([scores[name] for name in of[role]], axis=0)

    found: dict[StageMetric, Metric] = {}
    if of["adaptation"]:
        found[KNOWLEDGE_ACCUMULATION] = mean("adaptation")
    if of["held_out"]:
        found[ZERO_SHOT_RETENTION] = mean("held_out")
    if all(of.values()):
        accumulation, retention = mean("adaptation"), mean("held_out")
        found[GEOMETRIC_MEAN] = lambda scores: np.sqrt(
            np.maximum(0, accumulation(scores) * retention(scores))
        )
    return found


def _compared(
    name: str, baseline: str, method: Method, base: Method, roles: Mapping[str, str], seed: int,
    draws: int,
) -> Comparison:  # fmt: skip
    wanted = {metric.name: value for metric, value in metrics_of(roles).items()}
    of_datasets: list[Metric] = [itemgetter(dataset) for dataset in method]
    found = intervals([*wanted.values(), *of_datasets], method, base, seed=seed, draws=draws)
    metrics = tuple(
        Scored(metric, _mean(value, method), _mean(value, base), difference)
        for (metric, value), difference in zip(wanted.items(), found, strict=False)
    )
    differences = dict(zip(method, found[len(wanted) :], strict=True))
    values = [_p(method[one], base[one], said) for one, said in differences.items()]
    datasets = tuple(
        OfDataset(
            dataset, float(method[dataset].scores().mean()), float(base[dataset].scores().mean()),
            differences[dataset], roles[dataset], method[dataset].correct.shape[1], p, corrected,
        )
        for dataset, p, corrected in zip(method, values, holm(values), strict=True)
    )  # fmt: skip
    replicates = len(next(iter(method.values())).correct)
    return Comparison(
        name, baseline, replicates, sum(one.correct.shape[1] for one in method.values()), metrics,
        datasets, probability_of_improvement(scores_of(method), scores_of(base)),
    )  # fmt: skip


def _p(answers: Answers, base: Answers, difference: Interval) -> float:
    if len(answers.correct) == 1 and not answers.of_captions.any():
        return mcnemar(answers.correct[0], base.correct[0])
    return difference.p


def _mean(metric: Metric, method: Method) -> float:
    return float(np.mean(metric({name: one.scores() for name, one in method.items()})))
