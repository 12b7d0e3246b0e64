"""Scores over the stages, and over the operations that they took."""

from __future__ import annotations

import polars as pl

from fomo_dagster.plots.methods import over_stages_figure
from fomo_dagster.plots.scores import GM
from fomo_dagster.reports.content import Block, Figure, Section, Table
from fomo_dagster.reports.members import Reported
from fomo_dagster.reports.sections.paths import QUERY
from fomo_dagster.statistics.compute import Saving, saving
from fomo_dagster.units import operations

AGAINST_FLOPS = """
SELECT scores.*, flops FROM scores JOIN costs USING (experiment, stage)
WHERE experiment IN ({experiments}) ORDER BY experiment, stage
"""


def savings(reported: Reported) -> pl.DataFrame:
    """A row a method that reaches a GM of the baseline's: that GM, the FLOPs of both, and how many
    times less the method took (`times_less`)."""
    with_cost = reported.stages.join(reported.costs, on=["method", "stage"])
    placed = with_cost.drop_nulls([GM, "flops"]).sort("stage")

    def curve(name: str) -> tuple[list[float], list[float]]:
        of = placed.filter(method=name)
        return of["flops"].to_list(), of[GM].to_list()

    found: list[tuple[str, Saving]] = []
    for name in reported.names[1:]:
        if {name, reported.baseline}.isdisjoint(reported.oracles):
            of_both = saving(*curve(name), *curve(reported.baseline))
            if of_both is not None:
                found.append((name, of_both))
    rows = [(name, s.level, s.cost, s.of_other, s.times_less) for name, s in found]
    columns = {"method": pl.String(), GM: pl.Float64(), "flops": pl.Float64(),
               "flops_of_baseline": pl.Float64(), "times_less": pl.Float64()}  # fmt: skip
    return pl.DataFrame(rows, schema=columns, orient="row")


def section(reported: Reported) -> Section | None:
    """None for scores of θ₀ alone."""
    if reported.stages["stage"].max() == 0:
        return None
    bands = reported.final["replicates"].max() != 1
    said = " Bands: 95 % intervals over replicates." if bands else ""
    blocks: list[Block] = [
        Figure(
            "scores_over_stages", f"KA, ZS and GM after each stage.{said}"
            + (" Dashes: oracles." if reported.oracles else ""),
            over_stages_figure(reported.stages, reported.names, reported.oracles),
            reported.source(QUERY, reported.named("results"), "scores"),
        ),
    ]  # fmt: skip
    with_cost = reported.stages.join(reported.costs, on=["method", "stage"], how="left")
    if with_cost.filter(pl.col("stage") > 0)["flops"].is_not_null().any():
        source = reported.source(
            AGAINST_FLOPS, reported.named("results", "--against", "flops"), "scores", "weights"
        )
        drawing = over_stages_figure(with_cost, reported.names, reported.oracles, "flops")
        caption = f"The same over the operations of all trainings and merges up to then.{said}"
        blocks.append(Figure("scores_over_flops", caption, drawing, source))
        saved = savings(reported)
        if saved.height:
            blocks.append(
                Table(
                    "compute_at_equal_gm",
                    f"Compute at equal GM: what a method and {reported.baseline} took until they "
                    "first reached the lower of their two highest GMs, on straight lines between "
                    f"stages. {_left_out(reported, saved)}",
                    _shown(saved), saved, source, ("FLOPs", "FLOPs of baseline"),
                )
            )  # fmt: skip
    return Section("curves", "Over stages and compute", blocks)


def _left_out(reported: Reported, saved: pl.DataFrame) -> str:
    """Which methods have no row."""
    there = [*saved["method"], *reported.oracles, reported.baseline]
    names = [name for name in reported.names if name not in there]
    return f"Never above θ₀, or of unknown compute: {', '.join(names)}." if names else ""


def _shown(saved: pl.DataFrame) -> pl.DataFrame:
    times = pl.col("times_less")
    said = (
        pl.when(times >= 1).then(times.map_elements("{:.2f} × less".format, pl.String))
        .otherwise((1 / times).map_elements("{:.2f} × more".format, pl.String))
    )  # fmt: skip
    return saved.select(
        "method", pl.col(GM).alias("GM"),
        pl.col("flops").map_elements(operations, pl.String).alias("FLOPs"),
        pl.col("flops_of_baseline").map_elements(operations, pl.String).alias("FLOPs of baseline"),
        said.alias("compute"),
    )  # fmt: skip
