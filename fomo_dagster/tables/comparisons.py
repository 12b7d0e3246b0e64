"""By how much methods differ, and whether that can be told.

`fomo compare` prints it, and the assets of comparisons hold it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from fomo_dagster.errors import InputError
from fomo_dagster.home import Home
from fomo_dagster.metrics import (
    GEOMETRIC_MEAN,
    KNOWLEDGE_ACCUMULATION,
    STAGE_METRICS,
    ZERO_SHOT_RETENTION,
)
from fomo_dagster.statistics.comparison import (
    Comparison,
    OfDataset,
    Scored,
    compare,
    over_datasets,
    scores_of,
)
from fomo_dagster.statistics.intervals import Interval
from fomo_dagster.statistics.profiles import profile_band, score_profile
from fomo_dagster.statistics.significance import (
    LEVEL,
    MOST_REPLICATES,
    Pair,
    replicates_needed,
    samples_are_too_few,
    verdict,
)
from fomo_dagster.tables.answers import Methods, read_methods
from fomo_dagster.tables.members import Members
from fomo_dagster.tables.schemas import SCHEMAS

LABELS = {metric.name: metric.label for metric in STAGE_METRICS}
LEAST_REPLICATES = 3
_ROLES = {
    KNOWLEDGE_ACCUMULATION.name: ("adaptation",),
    ZERO_SHOT_RETENTION.name: ("held_out",),
    GEOMETRIC_MEAN.name: ("adaptation", "held_out"),
}  # of the datasets that a metric is of
METRICS = tuple(_ROLES)
"""What can be compared."""
TAUS = np.arange(100.0)  # of profiles, in percent
COMPARISONS, PAIRS = "comparisons", "comparison_pairs"  # tables
OF_COMPARISON = "comparison"  # their column with its name, which only an asset knows


@dataclass(frozen=True)
class Compared:
    """Methods against a baseline, the first of them. margin: in points, within which methods count
    as equivalent, and one as no worse; None: neither is asked."""

    read: Methods
    comparisons: Sequence[Comparison]
    margin: float | None

    @cached_property
    def pairs(self) -> list[Pair]:
        """All pairs of methods over datasets."""
        return over_datasets(self.read.answers)

    @cached_property
    def profiles(self) -> pl.DataFrame:
        """How the scores of each method are spread: `method`, `above` (τ, in percent), `share` of
        replicates and datasets that score more, from 0 to 1, and `low` and `high`, its 95 %
        interval over replicates, null of one."""
        found = []
        for name, answers in self.read.answers.items():
            scores = scores_of(answers)
            band = profile_band(scores, TAUS)
            low, high = (None, None) if band is None else band
            columns = {"above": TAUS, "share": score_profile(scores, TAUS), "low": low,
                       "high": high}  # fmt: skip
            frame = pl.DataFrame(columns).with_columns(pl.col("low", "high").cast(pl.Float64))
            found.append(frame.select(pl.lit(name).alias("method"), pl.all()))
        return pl.concat(found)

    @property
    def rows(self) -> pl.DataFrame:
        """Those of the table `comparisons`, without the comparison's name."""
        rows = [
            self._row(one, scored)
            for one in self.comparisons
            for scored in (*one.metrics, *one.datasets)
        ]
        return pl.DataFrame(rows, schema=_columns(COMPARISONS))

    @property
    def pair_rows(self) -> pl.DataFrame:
        """Those of the table `comparison_pairs`, likewise."""
        return pl.DataFrame([asdict(pair) for pair in self.pairs], schema=_columns(PAIRS))

    @property
    def remarks(self) -> list[str]:
        """What else to know of all of it."""
        return [said for one in self.comparisons for said in remarks_of(one)] + [*self.read.remarks]

    def _row(self, one: Comparison, scored: Scored) -> dict[str, Any]:
        of_dataset = scored if isinstance(scored, OfDataset) else None
        difference = scored.difference
        return {
            "method": one.method,
            "baseline": one.baseline,
            "kind": "metric" if of_dataset is None else "dataset",
            "name": scored.name,
            "role": of_dataset and of_dataset.role,
            "value": scored.value,
            "baseline_value": scored.baseline,
            "difference": difference.estimate,
            "low": difference.low,
            "high": difference.high,
            "p": difference.p if of_dataset is None else of_dataset.p,
            "corrected_p": of_dataset and of_dataset.corrected,
            "replicates": one.replicates,
            "replicates_needed": replicates_needed(difference),
            "queries": one.queries if of_dataset is None else of_dataset.queries,
            "verdict": verdict(difference, self.margin) if of_dataset is None else None,
            "margin": self.margin,
        }


def compared(
    home: Home,
    methods: Mapping[str, Members],
    *,
    margin: float | None = None,
    common: bool = False,
    metrics: Collection[str] = (),
) -> Compared:
    """The methods against the first of them, from what was predicted at their last stages.

    metrics: those of METRICS that count, on their datasets alone; all by default. Raises
    `InputError` as `read_methods`, and for a metric that is of no dataset.
    """
    read = read_methods(home, methods, common=common)
    if metrics:
        read = _of_metrics(read, metrics)
    found = compare(read.answers, read.roles, next(iter(methods)))
    if metrics:
        found = [
            replace(one, metrics=tuple(each for each in one.metrics if each.name in metrics))
            for one in found
        ]
    return Compared(read, found, margin)


def _of_metrics(read: Methods, metrics: Collection[str]) -> Methods:
    """The answers on the datasets of these metrics."""
    for metric in metrics:
        if missing := set(_ROLES[metric]) - set(read.roles.values()):
            listed = " or ".join(sorted(role.replace("_", "-") for role in missing))
            raise InputError(
                f"{', '.join(read.answers)} have no {LABELS[metric]}: no {listed} dataset is "
                "evaluated by all"
            )
    kept = {role for metric in metrics for role in _ROLES[metric]}
    roles = {name: role for name, role in read.roles.items() if role in kept}
    answers = {
        method: {name: one for name, one in of.items() if name in roles}
        for method, of in read.answers.items()
    }
    return replace(read, answers=answers, roles=roles)


def remarks_of(one: Comparison) -> list[str]:
    """What else to know of a method against the baseline."""
    said = [
        f"a run of {one.method} beats one of {one.baseline} on a dataset with probability "
        f"{one.improvement:.2f}"
    ]
    if one.replicates == 1:
        said.append(
            "one replicate: the intervals are over test samples alone, and say nothing of other "
            "seeds (`replicates: 5` in the file)"
        )
    elif one.replicates < LEAST_REPLICATES:
        said.append(f"{one.replicates} replicates: too few to trust the intervals")
    for metric in one.metrics:
        difference = metric.difference
        if one.replicates > 1 and difference.p >= LEVEL:
            said += _too_little(LABELS[metric.name], difference, one.replicates)
    return said


def _too_little(metric: str, difference: Interval, replicates: int) -> list[str]:
    """What it would take to tell a difference; nothing where more of the same says nothing."""
    if not difference.estimate or not difference.deviation:
        return []
    if samples_are_too_few(difference):
        return [
            f"{metric}: too little to tell, and more replicates would not do: it takes more test "
            "samples"
        ]
    needed = replicates_needed(difference)
    if needed is not None and needed <= replicates:
        return []
    count = f"more than {MOST_REPLICATES:,}" if needed is None else f"about {needed}"
    return [
        f"{metric}: too little to tell; a difference of {abs(difference.estimate):.2f} points "
        f"would take {count} replicates"
    ]


def shown_p(value: float) -> str:
    """A p as people read it."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _columns(table: str) -> dict[str, pl.DataType]:
    return {name: type_ for name, type_ in SCHEMAS[table].items() if name != OF_COMPARISON}
