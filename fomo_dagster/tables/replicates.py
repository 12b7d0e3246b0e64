"""Scores of methods: of an experiment by itself, or of all its replicates together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from fomo_dagster.errors import InputError
from fomo_dagster.metrics import STAGE_METRICS
from fomo_dagster.tables.members import members_of
from fomo_dagster.tables.views import query

Chosen = Sequence[str] | Mapping[str, Sequence[str]]
"""The experiments that count, each as what it is a replicate of; or method → its experiments. All
by default."""
SCORES = tuple(metric.name for metric in STAGE_METRICS if metric.on_leaderboard)
# An experiment with replicates of its name was run before it had any, and counts no more.
_OF_METHODS = """
SELECT l.experiment, coalesce(e.replicate_of, l.experiment) AS method, l.* EXCLUDE (experiment)
FROM {rows} AS l LEFT JOIN experiments AS e USING (experiment)
WHERE NOT EXISTS (FROM experiments AS r WHERE r.replicate_of = l.experiment)
ORDER BY ALL  -- as the last digits of means depend on the order
"""


def methods(home: Path, experiments: Chosen = ()) -> pl.DataFrame:
    """A row a method, the best mean GM first: `method`, `replicates`, and for each score of the
    leaderboard its mean, and the half width of its 95 % interval over the replicates by Student's t
    (`…_within`; null for one replicate).
    """
    return means_of(of_methods(home, "leaderboard", experiments), "method").sort(
        "geometric_mean", "knowledge_accumulation", descending=True, nulls_last=True
    )


def methods_by_stage(home: Path, experiments: Chosen = ()) -> pl.DataFrame:
    """As `methods`, a row a method and stage, in this order."""
    return means_of(of_methods(home, "scores", experiments), "method", "stage").sort(
        "method", "stage"
    )


def costs_by_stage(home: Path, experiments: Chosen = ()) -> pl.DataFrame:
    """The means of the view `costs` over replicates, a row a method and stage, in this order; null
    where one of them is."""
    rows = of_methods(home, "costs", experiments).drop("experiment")
    means = (
        pl.when(pl.col(name).is_not_null().all()).then(pl.col(name).mean()).alias(name)
        for name in rows.columns if name not in ("method", "stage")
    )  # fmt: skip
    return rows.group_by("method", "stage", maintain_order=True).agg(means).sort("method", "stage")


def methods_by_cost(home: Path, experiments: Chosen = ()) -> tuple[pl.DataFrame, dict[str, str]]:
    """`methods_by_stage` with `costs_by_stage`, without the methods that `run_otherwise` names,
    and these."""
    rows = methods_by_stage(home, experiments).join(
        costs_by_stage(home, experiments), on=["method", "stage"]
    )
    there = set(rows["method"])
    otherwise = {name: why for name, why in run_otherwise(home).items() if name in there}
    return rows.filter(~pl.col("method").is_in(list(otherwise))), otherwise


def of_methods(home: Path, view: str, experiments: Chosen = ()) -> pl.DataFrame:
    """The rows of a view that has experiments, with the `method` that each is a replicate of, or
    counts for; where it has none, its own name."""
    rows = query(home, _OF_METHODS.format(rows=view))
    if isinstance(experiments, Mapping):
        return with_methods(rows, experiments).select(rows.columns)
    return rows.filter(pl.col("experiment").is_in(list(experiments))) if experiments else rows


def with_methods(rows: pl.DataFrame, members: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    """The rows of the experiments of methods, in order, with the `method` that each counts for.
    members: method → its experiments."""
    pairs = [(method, name) for method, own in members.items() for name in own]
    known = pl.DataFrame(pairs, schema={"method": pl.String, "experiment": pl.String}, orient="row")
    return rows.drop("method", strict=False).join(known, on="experiment", maintain_order="left")


def chances_as_text(row: Mapping[str, float | None]) -> str:
    """What guessing scores (a row of the view `chances`), for people; nothing where not known."""
    labels = {metric.name: metric.label for metric in STAGE_METRICS}
    known = {labels[name]: row[name] for name in SCORES if row[name] is not None}
    return ", ".join(f"{label} {value:.2f}" for label, value in known.items())


def run_otherwise(home: Path) -> dict[str, str]:
    """Method → why its experiments are no replicates of each other, of those that were run with
    settings that differ in more than seeds: their mean is that of no method."""
    rows = query(home, "SELECT * FROM experiments WHERE replicate_of IS NOT NULL ORDER BY ALL")
    found = {}
    for (method,), of in rows.group_by("replicate_of", maintain_order=True):
        try:
            members_of(str(method), of.to_dicts())
        except InputError as error:
            found[str(method)] = str(error)
    return found


def means_of(rows: pl.DataFrame, *by: str) -> pl.DataFrame:
    """A row for each of `by`: `replicates`, and of each score its mean and `…_within`, as of
    `methods`. rows: one a replicate."""
    count = pl.len().cast(pl.Int64)
    found = rows.group_by(by, maintain_order=True).agg(
        replicates=count,
        **{name: pl.col(name).mean() for name in SCORES},
        **{f"{name}_deviation": pl.col(name).std() for name in SCORES},
    )
    if found["replicates"].max() not in (None, 1):
        from fomo_dagster.statistics.intervals import student  # which loads SciPy
    factors = {
        number: math.nan if number < 2 else student(number - 1) / math.sqrt(number)
        for number in found["replicates"].unique()
    }
    factor = pl.col("replicates").replace_strict(factors, return_dtype=pl.Float64)
    return found.select(
        *by,
        "replicates",
        *SCORES,
        *(
            (pl.col(f"{name}_deviation") * factor).fill_nan(None).alias(f"{name}_within")
            for name in SCORES
        ),
    )
