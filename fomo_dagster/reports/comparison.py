"""Comparisons as people read them: frames that `fomo compare` prints too."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from fomo_dagster.statistics.comparison import Comparison, OfDataset
from fomo_dagster.statistics.intervals import Interval
from fomo_dagster.statistics.significance import verdict
from fomo_dagster.tables.comparisons import LABELS, shown_p
from fomo_dagster.units import counted


def titled(one: Comparison) -> str:
    """What is compared."""
    return (
        f"{one.method} against {one.baseline}: {counted(one.replicates, 'replicate')}, "
        f"{counted(len(one.datasets), 'dataset')}, {one.queries} queries"
    )


def metrics_frame(one: Comparison, margin: float | None) -> pl.DataFrame:
    """A row a metric: both scores, their difference with its interval and p, and a verdict."""
    return pl.DataFrame(
        [
            {
                "metric": LABELS[metric.name],
                "baseline": metric.baseline,
                "method": metric.value,
                "difference": signed(metric.difference),
                "95 % interval": written(metric.difference),
                "p": shown_p(metric.difference.p),
                "verdict": verdict(metric.difference, margin),
            }
            for metric in one.metrics
        ]
    )


def worst_first(one: Comparison) -> list[OfDataset]:
    """The datasets by their differences."""
    return sorted(one.datasets, key=lambda dataset: dataset.difference.estimate)


def datasets_frame(one: Comparison, chances: Mapping[str, float] | None = None) -> pl.DataFrame:
    """A row a dataset, the worst first. chances: dataset → what guessing scores, a column if there
    are any."""
    return pl.DataFrame(
        [
            {
                "dataset": dataset.name,
                "role": dataset.role.replace("_", " "),
                **({"chance": chances.get(dataset.name)} if chances else {}),
                "baseline": dataset.baseline,
                "method": dataset.value,
                "difference": signed(dataset.difference),
                "95 % interval": written(dataset.difference),
                "p (Holm)": shown_p(dataset.corrected),
            }
            for dataset in worst_first(one)
        ]
    )


def signed(difference: Interval) -> str:
    """A difference with its sign."""
    return f"{difference.estimate:+.2f}"


def written(difference: Interval) -> str:
    """The bounds of an interval."""
    return f"{difference.low:+.2f} to {difference.high:+.2f}"
