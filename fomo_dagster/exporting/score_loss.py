"""What an exported model loses in score against the model it is of, on the same test samples.

Both answer the same queries, so differences have paired intervals (`statistics.intervals`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from fomo_dagster.evaluation.evaluate import evaluate
from fomo_dagster.evaluation.prompts import mean_embeddings
from fomo_dagster.exporting.subject import Evaluated, Subject
from fomo_dagster.metrics import COUNTS_WITHIN, GEOMETRIC_MEAN, SCORE
from fomo_dagster.statistics.answers import Answers, Floats
from fomo_dagster.statistics.comparison import metrics_of
from fomo_dagster.statistics.intervals import Interval, interval

if TYPE_CHECKING:
    from torch import Tensor

    from fomo_dagster.models.backbones import Model

ROLES = {"adaptation": "KA", "held_out": "ZS"}
_QUERY = ("query", "key", "caption")


@dataclass(frozen=True)
class Change:
    """before, after: in percent. difference: of the two, with an interval; None if the answers
    from before were not kept."""

    before: float
    after: float
    difference: Interval | None

    @property
    def points(self) -> float:
        """Lost points are negative."""
        return self.after - self.before


@dataclass(frozen=True)
class ScoreLoss:
    """datasets: dataset → change; means: KA and ZS, whichever there is, → change."""

    datasets: Mapping[str, Change]
    means: Mapping[str, Change]


def score_loss(subject: Subject, exported: Model) -> ScoreLoss:
    """Evaluate the exported model as the subject was evaluated, on the CPU.

    Raises as `evaluate` does.
    """
    after = {one.name: _evaluated(one, subject, exported) for one in subject.evaluated}
    before = {one.name: one for one in subject.evaluated}
    datasets = {name: _change([before[name]], [after[name]], _mean_of([name])) for name in before}
    means = {}
    for role, mean in ROLES.items():
        names = [name for name, one in before.items() if one.role == role]
        if names:
            then, now = ([found[name] for name in names] for found in (before, after))
            means[mean] = _change(then, now, _mean_of(names))
    return ScoreLoss(datasets, means)


def score_intervals(evaluated: Sequence[Evaluated]) -> tuple[dict[str, Interval], ...]:
    """Those of the datasets' scores, and of KA, ZS and GM, over test samples; without what has no
    predictions."""
    kept = {one.name: one for one in evaluated if one.predictions is not None}
    answers = {name: _answers(one, _keys(one)) for name, one in kept.items()}
    of_datasets = {name: interval(_mean_of([name]), {name: own}) for name, own in answers.items()}
    of_means = {}
    for role, mean in ROLES.items():
        names = [one.name for one in evaluated if one.role == role]
        if names and all(name in answers for name in names):
            of_means[mean] = interval(_mean_of(names), {name: answers[name] for name in names})
    if len(of_means) == len(ROLES):
        metrics = metrics_of({one.name: one.role for one in evaluated})
        of_means[GEOMETRIC_MEAN.short] = interval(metrics[GEOMETRIC_MEAN], answers)
    return of_datasets, of_means


def mean_score(evaluated: Sequence[Evaluated], role: str) -> float | None:
    """KA or ZS, in percent; None if no dataset has the role."""
    scores = [one.score for one in evaluated if one.role == role]
    return sum(scores) / len(scores) if scores else None


def _evaluated(one: Evaluated, subject: Subject, exported: Model) -> Evaluated:
    from fomo_dagster.evaluation.encoding import Encoder

    encoder = Encoder(
        model=exported, batch_size=subject.execution.evaluation_batch_size, precision="fp32",
        device="cpu", pixels=one.pixels, progress=subject.progress,
    )  # fmt: skip

    def embeddings(texts: tuple[str, ...], each: int) -> Tensor:
        return mean_embeddings(encoder.texts(texts), each)

    result = evaluate(encoder, one.evaluation_set, subject.settings, embeddings)
    (score,) = result.metrics.filter(pl.col("metric") == SCORE)["value"]
    return replace(one, score=score, predictions=result.predictions)


def _change(
    before: Sequence[Evaluated],
    after: Sequence[Evaluated],
    metric: Callable[[Mapping[str, Floats]], Floats],
) -> Change:
    scores = [float(np.mean([one.score for one in part])) for part in (before, after)]
    if any(one.predictions is None for one in before):
        return Change(scores[0], scores[1], None)
    keys = {one.name: _keys(one) for one in before}
    then, now = ({one.name: _answers(one, keys[one.name]) for one in p} for p in (before, after))
    return Change(scores[0], scores[1], interval(metric, now, then))


def _mean_of(names: Sequence[str]) -> Callable[[Mapping[str, Floats]], Floats]:
    return lambda scores: np.asarray(np.mean([scores[name] for name in names], axis=0))


def _keys(one: Evaluated) -> pl.DataFrame:
    assert one.predictions is not None
    return one.predictions.select(_QUERY).sort(_QUERY)


def _answers(one: Evaluated, keys: pl.DataFrame) -> Answers:
    """The answers to the queries of `keys`, in their order."""
    assert one.predictions is not None
    rows = keys.join(
        one.predictions, on=_QUERY, how="left", nulls_equal=True, maintain_order="left"
    )
    within = COUNTS_WITHIN[one.evaluation_set.dataset.task]
    return Answers(
        (rows["rank"] < within).to_numpy()[None],
        (rows["query"] == "caption").to_numpy(),
        (rows["key"].rank("dense") - 1).cast(pl.Int64).to_numpy(),
    )
