"""What the weights of each method took."""

from __future__ import annotations

from functools import partial

import polars as pl

from fomo_dagster.reports.content import Section, Table
from fomo_dagster.reports.members import Reported
from fomo_dagster.tables.results import COSTS
from fomo_dagster.units import in_units

_QUERY = """
SELECT * FROM costs WHERE experiment IN ({experiments})
QUALIFY stage = max(stage) OVER (PARTITION BY experiment)
"""


def costs(reported: Reported) -> pl.DataFrame:
    """A row a method: its last stage's row of the means of `costs`."""
    last = pl.col("stage") == pl.col("stage").max().over("method")
    return reported.costs.filter(last)


def section(reported: Reported) -> Section | None:
    """None where nothing was trained or merged."""
    data = costs(reported)
    if data["stage"].max() in (None, 0):
        return None
    known = [name for name in COSTS if data[name].is_not_null().any()]
    shown = data.select(
        "method", pl.col("stage").alias("stages"),
        *(
            pl.col(name).map_elements(partial(_written, name), pl.String).alias(_heading(name))
            for name in known
        ),
    )  # fmt: skip
    caption = (
        "What all trainings and merges took up to the last stage (means over replicates), without "
        "θ₀, shards and evaluations; memory: the most at once. Times are those of whatever machine "
        "they were made on."
    )
    source = reported.source(_QUERY, reported.named("results"), "weights")
    headings = [_heading(name) for name in known]
    return Section("costs", "Costs", [Table("costs", caption, shown, data, source, headings)])


def _written(name: str, value: float) -> str | None:
    return f"{value:,.0f}" if name == "samples" else in_units(name, value)


def _heading(name: str) -> str:
    endings = ("_bytes", "_joules")
    for ending in endings:
        name = name.removesuffix(ending)
    return {"flops": "FLOPs", "seconds": "time"}.get(name, name.replace("_", " "))
