"""Scores of methods: of an experiment by itself, or of all its replicates together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fomo_dagster.metrics import STAGE_METRICS
from fomo_dagster.tables.views import query

LEVEL = 0.95
SCORES = tuple(metric.name for metric in STAGE_METRICS if metric.on_leaderboard)
_METHODS = """
SELECT l.experiment, coalesce(e.replicate_of, l.experiment) AS method, l.* EXCLUDE (experiment)
FROM leaderboard AS l LEFT JOIN experiments AS e USING (experiment)
"""


def methods(home: Path, experiments: Sequence[str] = ()) -> pl.DataFrame:
    """A row a method, the best mean GM first: `method`, `replicates`, and for each score of the
    leaderboard its mean, and the half width of its 95 % interval over the replicates by Student's t
    (`…_within`; null for one replicate). experiments: those that count; all by default.
    """
    board = query(home, _METHODS)
    if experiments:
        board = board.filter(pl.col("experiment").is_in(list(experiments)))
    count = pl.len().cast(pl.Int64)
    found = board.group_by("method", maintain_order=True).agg(
        replicates=count,
        **{name: pl.col(name).mean() for name in SCORES},
        **{f"{name}_deviation": pl.col(name).std() for name in SCORES},
    )
    factors = {
        number: math.nan if number < 2 else student(number - 1) / math.sqrt(number)
        for number in found["replicates"].unique()
    }
    factor = pl.col("replicates").replace_strict(factors, return_dtype=pl.Float64)
    return found.select(
        "method",
        "replicates",
        *SCORES,
        *(
            (pl.col(f"{name}_deviation") * factor).fill_nan(None).alias(f"{name}_within")
            for name in SCORES
        ),
    ).sort("geometric_mean", "knowledge_accumulation", descending=True, nulls_last=True)


def student(freedom: float, level: float = LEVEL) -> float:
    """The quantile of Student's t that a two-sided interval of this level takes."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))
