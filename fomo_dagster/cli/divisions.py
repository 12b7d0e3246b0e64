"""What `fomo fit --joint --approach` shows: how to divide compute, without a law of the error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from rich.console import Console

from fomo_dagster.cli.laws import Points, parameter_rows, parameters_as_data, places_ahead
from fomo_dagster.cli.output import say
from fomo_dagster.cli.rows import print_frame
from fomo_dagster.errors import InputError
from fomo_dagster.statistics.answers import Floats
from fomo_dagster.statistics.divisions_of_compute import (
    Approach,
    Division,
    envelope,
    exponent_ranges,
    isoflop,
)
from fomo_dagster.statistics.extrapolation import Range
from fomo_dagster.units import counted, number, operations

APPROACHES: Mapping[str, Approach] = {"envelope": envelope, "isoflop": isoflop}
COLUMNS = ("parameters", "samples", "flops")
_MOST_SHOWN = 12  # budgets


@dataclass(frozen=True)
class Divided:
    """ranges: of a and b; at: the budgets asked for, in FLOPs."""

    points: Points
    approach: str
    division: Division
    ranges: Mapping[str, Range] | None
    at: Floats

    @property
    def best(self) -> pl.DataFrame:
        """A row a budget at which the best size was found: of an envelope, where that changes."""
        frame = pl.DataFrame(
            {
                "flops": self.division.budgets, "parameters": self.division.sizes,
                "samples": self.division.samples,
            }
        )  # fmt: skip
        if self.approach == "envelope":
            return frame.filter(pl.col("parameters") != pl.col("parameters").shift(1, fill_value=0))
        return frame

    @property
    def optima(self) -> pl.DataFrame:
        """A row a budget that was asked for."""
        sizes, samples = self.division.optimum(self.at)
        return pl.DataFrame({"flops": self.at, "parameters": sizes, "samples": samples})


def divided(points: Points, approach: str, budgets: Sequence[float]) -> Divided:
    """How points with COLUMNS divide compute; budgets: by default twice the largest that there is.
    Raises `InputError` as the approach and `places_ahead` do."""
    columns = (*map(points.column, COLUMNS), points.column("error"))
    size, samples, flops, errors = columns
    try:
        division = APPROACHES[approach](size, samples, flops, errors)
    except InputError as error:
        raise InputError(f"{points.label} against parameters and samples: {error}") from error
    at = places_ahead(budgets, flops.max(), "FLOPs")
    ranges = exponent_ranges(APPROACHES[approach], (size, samples, flops, errors))
    return Divided(points, approach, division, ranges, at)


def print_divided(found: Divided, console: Console) -> None:
    """The exponents, the budgets that they come from, and the optima."""
    title = (
        f"{found.points.label}, divided by {found.approach}: "
        f"{counted(found.points.rows.height, 'point')}"
    )
    say(console, (title, "bold"))
    rows = parameter_rows(found.division.exponents, found.ranges)
    rows = rows.rename({"95 % interval": "80 % interval"})
    print_frame(rows, None, console, numbers=("value",), narrow="parameter")
    say(console, "N_opt ∝ C^a and D_opt ∝ C^b; intervals: of fits to four fifths of the points")
    if found.ranges is None:
        say(console, "no intervals: too few points, of which four fifths divide no compute")
    best = found.best
    where = "Best size from each budget on" if found.approach == "envelope" else "Best size"
    print_frame(_written(best.head(_MOST_SHOWN)), where, console, narrow="compute")
    if best.height > _MOST_SHOWN:
        say(console, f"{best.height - _MOST_SHOWN} more: --json")
    print_frame(_written(found.optima), "Best division of compute", console, narrow="compute")
    for remark in found.points.remarks:
        say(console, remark)


def divided_as_data(found: Divided) -> dict[str, Any]:
    """All of it, for JSON."""
    return {
        "error": found.points.label,
        "approach": found.approach,
        "points": found.points.rows.to_dicts(),
        "exponents": parameters_as_data(found.division.exponents, found.ranges),
        "best": found.best.to_dicts(),
        "optima": found.optima.to_dicts(),
        "remarks": list(found.points.remarks),
    }


def _written(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        pl.col("flops").map_elements(operations, pl.String).alias("compute"),
        *(pl.col(name).map_elements(number, pl.String) for name in ("parameters", "samples")),
    )
