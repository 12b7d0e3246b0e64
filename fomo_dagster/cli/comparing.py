"""What `fomo compare` shows: by how much methods differ, and whether that can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import polars as pl
from rich.console import Console

from fomo_dagster.cli.output import say
from fomo_dagster.cli.rows import print_frame
from fomo_dagster.errors import InputError
from fomo_dagster.home import Home
from fomo_dagster.metrics import STAGE_METRICS
from fomo_dagster.statistics.comparison import Comparison, Scored, compare, over_datasets
from fomo_dagster.statistics.intervals import Interval
from fomo_dagster.statistics.significance import LEVEL, replicates_needed, verdict
from fomo_dagster.tables.answers import Methods, read_methods
from fomo_dagster.units import counted

LABELS = {metric.name: metric.label for metric in STAGE_METRICS}
LEAST_REPLICATES = 3


def compared(
    home: Home, methods: Sequence[str], baseline: str | None, *, common: bool
) -> tuple[Methods, list[Comparison]]:
    """The methods against the baseline, by default the first. Raises `InputError` as
    `read_methods` does, and where there are not two with the baseline."""
    asked = list(dict.fromkeys([baseline, *methods] if baseline is not None else methods))
    if len(asked) < 2:
        raise InputError(f"a comparison takes two or more methods, not {', '.join(methods)}")
    read = read_methods(home, asked, common=common)
    return read, compare(read.answers, read.roles, asked[0])


def print_comparisons(
    read: Methods, comparisons: Sequence[Comparison], margin: float | None, console: Console
) -> None:
    """Each method against the baseline; all pairs where there are several."""
    for one in comparisons:
        title = (
            f"{one.method} against {one.baseline}: {counted(one.replicates, 'replicate')}, "
            f"{counted(len(one.datasets), 'dataset')}, {one.queries} queries"
        )
        print_frame(_metrics(one, margin), title, console, narrow="metric")
        worst = sorted(one.datasets, key=lambda dataset: dataset.difference.estimate)
        print_frame(_datasets(one, worst), "Datasets, in %", console, narrow="dataset")
        for sentence in _remarks(one):
            say(console, sentence)
    if len(comparisons) > 1:
        pairs = pl.DataFrame([asdict(pair) for pair in over_datasets(read.answers)])
        print_frame(pairs, "All pairs over datasets (Wilcoxon, Holm)", console, narrow="first")
    for remark in read.remarks:
        say(console, remark)


def as_data(
    read: Methods, comparisons: Sequence[Comparison], margin: float | None
) -> dict[str, Any]:
    """All of it, for JSON."""
    return {
        "comparisons": [
            {
                **asdict(one),
                "metrics": [
                    _as_data(metric) | {"verdict": verdict(metric.difference, margin)}
                    for metric in one.metrics
                ],
                "datasets": [_as_data(dataset) for dataset in one.datasets],
            }
            for one in comparisons
        ],
        "pairs": [asdict(pair) for pair in over_datasets(read.answers)],
        "replicates": list(read.replicates),
        "remarks": list(read.remarks),
    }


def _as_data(scored: Scored) -> dict[str, Any]:
    data = asdict(scored)
    data["difference"] |= {
        "p": scored.difference.p,
        "replicates_needed": replicates_needed(scored.difference),
    }
    return data


def _metrics(one: Comparison, margin: float | None) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "metric": LABELS[metric.name],
                "baseline": metric.baseline,
                "method": metric.value,
                "difference": _signed(metric.difference),
                "95 % interval": _written(metric.difference),
                "p": _p(metric.difference.p),
                "verdict": verdict(metric.difference, margin),
            }
            for metric in one.metrics
        ]
    )


def _datasets(one: Comparison, datasets: Sequence[Any]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "dataset": dataset.name,
                "role": dataset.role.replace("_", " "),
                "baseline": dataset.baseline,
                "method": dataset.value,
                "difference": _signed(dataset.difference),
                "95 % interval": _written(dataset.difference),
                "p (Holm)": _p(dataset.corrected),
            }
            for dataset in datasets
        ]
    )


def _remarks(one: Comparison) -> list[str]:
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
            needed = replicates_needed(difference)
            if needed is None and difference.estimate and difference.deviation:
                said.append(
                    f"{LABELS[metric.name]}: too little to tell, and more replicates would not do: "
                    "it takes more test samples"
                )
            if needed is not None and needed > one.replicates:
                said.append(
                    f"{LABELS[metric.name]}: too little to tell; a difference of "
                    f"{abs(difference.estimate):.2f} points would take about {needed} replicates"
                )
    return said


def _signed(difference: Interval) -> str:
    return f"{difference.estimate:+.2f}"


def _written(difference: Interval) -> str:
    return f"{difference.low:+.2f} to {difference.high:+.2f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
