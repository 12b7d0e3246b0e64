"""What each method scores where the classes of a dataset are shown in other kinds of pictures."""

from __future__ import annotations

import polars as pl

from fomo_dagster.reports.content import Section, Table
from fomo_dagster.reports.members import Reported
from fomo_dagster.tables.replicates import of_methods

_QUERY = """
SELECT * FROM shifts WHERE experiment IN ({experiments})
QUALIFY stage IN (0, max(stage) OVER (PARTITION BY experiment))
"""
_BY = ("method", "shift_of", "datasets")


def shifts(reported: Reported) -> pl.DataFrame:
    """A row a method and dataset whose classes are shown otherwise: means over replicates of the
    view `shifts` at the last stage (`score`, `score_of_original`, `chance`), and at θ₀
    (`score_of_theta_0`)."""
    rows = of_methods(reported.home.root, "shifts", reported.members)
    starts = rows.filter(stage=0).group_by(_BY).agg(pl.mean("score").alias("score_of_theta_0"))
    last = rows.filter(pl.col("stage") == pl.col("stage").max().over("method"))
    means = last.group_by(_BY).agg(pl.mean("score", "score_of_original", "chance"))
    order = pl.DataFrame({"method": reported.names}, schema={"method": pl.String})
    found = order.join(means.sort("shift_of"), on="method", maintain_order="left_right")
    return found.join(starts, on=_BY, how="left", maintain_order="left")


def section(reported: Reported) -> Section | None:
    """None where no such dataset is evaluated."""
    found = shifts(reported)
    if found.is_empty():
        return None
    caption = (
        "Mean score of the last stage on the datasets that show the classes of another in "
        "pictures of other distributions, beside θ₀, guessing, and the score on that one itself."
    )
    shown = found.select(
        "method", pl.col("shift_of").alias("shifts of"), "datasets",
        pl.col("score_of_theta_0").alias("θ₀"), "score",
        pl.col("score_of_original").alias("original"), "chance",
    )  # fmt: skip
    source = reported.source(_QUERY, reported.named("results", "--datasets"), "evaluation")
    table = Table("shifts", caption, shown, found, source)
    return Section("shifts", "Distribution shifts", [table])
