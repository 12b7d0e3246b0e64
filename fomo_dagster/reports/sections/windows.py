"""What each stage scores on the test samples of each time window, of streams with dates."""

from __future__ import annotations

import polars as pl

from fomo_dagster.plots.methods import windows_figure
from fomo_dagster.reports.content import Block, Figure, Fold, Section, Table
from fomo_dagster.reports.members import Reported
from fomo_dagster.tables.replicates import of_methods

_QUERY = """
SELECT experiment, stage, trained_until, tested_on, distance, score, chance FROM windows
WHERE experiment IN ({experiments}) ORDER BY ALL
"""
_BY = ("method", "stage", "trained_until", "tested_on", "distance")
_KINDS = {"earlier": -1, "same": 0, "later": 1}  # of windows, by the sign of their distance


def windows(reported: Reported) -> pl.DataFrame:
    """The view `windows` of the methods that have several, as means over replicates: method, stage,
    trained_until, tested_on, distance, score, chance."""
    rows = of_methods(reported.home.root, "windows", reported.members)
    several = rows.filter(pl.col("tested_on").n_unique().over("method") > 1)
    of_cells = several.group_by(_BY, maintain_order=True)
    return of_cells.agg(pl.mean("score", "chance")).sort(_BY)


def transfer(found: pl.DataFrame) -> pl.DataFrame:
    """A row a method: mean score after stages 1..T on windows before that of the training, on it
    and after it, null where there are none."""
    sign = pl.col("distance").sign()
    means = (pl.col("score").filter(sign == kind).mean().alias(name)
             for name, kind in _KINDS.items())  # fmt: skip
    return found.group_by("method", maintain_order=True).agg(*means)


def section(reported: Reported) -> Section | None:
    """None where no stream has several windows."""
    found = windows(reported)
    if found.is_empty():
        return None
    source = reported.source(_QUERY, None, "evaluation", "chunk", "order", "scores")
    caption = (
        "Mean score after each stage on the test samples of each time window, in %; before a "
        "stage's number, the latest window that was trained on by then. Chance is what guessing "
        "scores."
    )
    means = (
        "Mean score after stages 1..T on windows before the latest that was trained on (what was "
        "kept), on the same, and after it (what is still to come), in %."
    )
    summary = transfer(found)
    numbers = found.drop("distance", "chance")
    wide = numbers.pivot("tested_on", index=["method", "stage", "trained_until"], values="score")
    blocks: list[Block] = [
        Figure("windows", caption, windows_figure(found, reported.names), source),
        Table("transfer_over_time", means, summary, summary, source),
        Fold("As numbers", [Table("windows", "Stage by window, in %.", wide, found, source)]),
    ]
    return Section("windows", "Over time", blocks)
