"""What a metric is, and the metrics of a stage. Each is declared here once.

Result files, tables, views, the leaderboard, `fomo results`, Dagster's metadata and plots are made
from these entries. The metrics of a dataset are declared next to their formulas, in the file of
their task. Nothing here loads PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

import polars as pl

SCORE = "score"
"""The metric of a dataset that scores are made of: accuracy, or the mean of both recalls@5."""

COUNTS_WITHIN = {"classification": 1, "retrieval": 5}
"""Task → among how many of the first answers the right one has to be, to count for the score."""


@dataclass(frozen=True)
class Metric:
    """A number that says how good something is.

    unit: `%` of samples, `points`, which are differences of percentages, `nats`, or a `factor`.
    best: which values are better. short: its name where space is short. most: how large a `%` can
    be.
    """

    name: str
    description: str
    unit: Literal["%", "points", "nats", "factor"] = "%"
    best: Literal["high", "low", "neither"] = "high"
    short: str = ""
    most: float = 100.0

    @property
    def label(self) -> str:
        """Its name as people read it."""
        return self.short or self.name.replace("_", " ")

    def variant(self, ending: str, how: str) -> Metric:
        """The same, taken in another way: its name has an ending, its description says how."""
        return Metric(
            f"{self.name}_{ending}", f"`{self.name}` {how}", unit=self.unit, best=self.best,
            most=self.most,
        )  # fmt: skip


R = TypeVar("R")


@dataclass(frozen=True)
class DatasetMetric(Metric, Generic[R]):
    """A metric of one dataset, computed from its test samples.

    compute: its value and the number of samples behind it; None if it is not defined, and then it
    has no row. is_score: whether it is the metric that scores are made of.
    """

    compute: Callable[[R], tuple[float, int] | None] = field(kw_only=True)
    is_score: bool = False


def values_of(metrics: Sequence[DatasetMetric[R]], found: R) -> dict[str, tuple[float, int]]:
    """Metric → value and number of samples. The score comes first, under the name that all tasks
    share."""
    values = {m.name: value for m in metrics if (value := m.compute(found)) is not None}
    (score,) = (m.name for m in metrics if m.is_score)
    return {SCORE: values[score], **values}


@dataclass(frozen=True)
class StageMetric(Metric):
    """A metric of all datasets together after a stage; null if it is not defined.

    on_leaderboard: whether the leaderboard shows its last value. with_mean: whether it also shows
    its mean over stages 1..T. first: whether it existed in the first version. The names of the
    others are part of the recipe of scores, so adding one computes scores again.
    """

    on_leaderboard: bool = False
    with_mean: bool = False
    first: bool = False


KNOWLEDGE_ACCUMULATION = StageMetric(
    "knowledge_accumulation",
    "mean score over the adaptation datasets",
    short="KA",
    on_leaderboard=True,
    with_mean=True,
    first=True,
)
ZERO_SHOT_RETENTION = StageMetric(
    "zero_shot_retention",
    "mean score over the held-out datasets; null if nothing is held out",
    short="ZS",
    on_leaderboard=True,
    with_mean=True,
    first=True,
)
GEOMETRIC_MEAN = StageMetric(
    "geometric_mean",
    "√(KA · ZS); null if ZS is null",
    short="GM",
    on_leaderboard=True,
    with_mean=True,
    first=True,
)
BACKWARD_TRANSFER = StageMetric(
    "backward_transfer",
    "mean change of the scores of earlier chunks' concepts since the stage that brought them; "
    "null if there is no earlier chunk",
    unit="points",
    first=True,
)
FORGETTING = StageMetric(
    "forgetting",
    "mean drop of the scores of earlier chunks' concepts from their best since they arrived; null "
    "if backward transfer is null",
    unit="points",
    best="low",
    first=True,
)

STAGE_METRICS: tuple[StageMetric, ...] = (
    KNOWLEDGE_ACCUMULATION,
    ZERO_SHOT_RETENTION,
    GEOMETRIC_MEAN,
    BACKWARD_TRANSFER,
    FORGETTING,
)
"""In the order of the columns of the table `scores`."""

SCORES: dict[str, pl.DataType] = {
    "stage": pl.Int64(),
    **{metric.name: pl.Float64() for metric in STAGE_METRICS},
}


def with_all_scores(scores: pl.DataFrame) -> pl.DataFrame:
    """`scores` with every column of `SCORES`; metrics that did not exist when they were computed
    are null."""
    missing = [
        pl.lit(None, dtype).alias(name)
        for name, dtype in SCORES.items()
        if name not in scores.columns
    ]
    return scores.with_columns(missing)
