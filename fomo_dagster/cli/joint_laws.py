"""What `fomo fit --joint` shows: a law of model size and samples, and how to divide compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console

from fomo_dagster.cli.laws import (
    Points,
    parameter_rows,
    parameters_as_data,
    places_ahead,
    written,
)
from fomo_dagster.cli.output import say
from fomo_dagster.cli.rows import print_frame
from fomo_dagster.errors import InputError
from fomo_dagster.statistics.answers import Floats
from fomo_dagster.statistics.compute_optimal import (
    EXPONENTS,
    JointLaw,
    JointUncertainty,
    fit_joint,
    joint_uncertainty,
)
from fomo_dagster.units import counted, number, operations

COLUMNS = ("parameters", "samples", "flops")
_FALLS_WITH = {"α": "parameters", "β": "samples"}
_NEAR = 1.01


@dataclass(frozen=True)
class Joint:
    """flops_each: k of C = k·N·D, the median of the points; budgets: in FLOPs."""

    points: Points
    law: JointLaw
    flops_each: float
    budgets: Floats
    uncertainty: JointUncertainty | None

    @property
    def optima(self) -> pl.DataFrame:
        """A row for each budget: how to divide it, and the error then; with intervals as lists."""
        sizes, samples = self.law.optimum(self.budgets, self.flops_each)
        found: dict[str, Any] = {
            "flops": self.budgets, "parameters": sizes, "samples": samples,
            "predicted": self.law.at(sizes, samples),
        }  # fmt: skip
        if self.uncertainty is not None:
            ranges = (self.uncertainty.sizes, self.uncertainty.samples, self.uncertainty.values)
            for name, intervals in zip(("parameters", "samples", "predicted"), ranges, strict=True):
                found[f"{name}_low"], found[f"{name}_high"] = zip(*intervals, strict=True)
        bounded = pl.col("^predicted.*$").clip(upper_bound=self.points.most)
        return pl.DataFrame(found).with_columns(bounded)


def joint_of(points: Points, budgets: Sequence[float]) -> Joint:
    """The law of points with COLUMNS, and the best division of budgets, by default of twice the
    largest that there is. Raises `InputError` as `fit_joint` and `places_ahead` do."""
    size, samples, flops = map(points.column, COLUMNS)
    try:
        law = fit_joint(size, samples, points.column("error"))
    except InputError as error:
        raise InputError(f"{points.label} against parameters and samples: {error}") from error
    each = float(np.median(flops / (size * samples)))
    ahead = places_ahead(budgets, flops.max(), "FLOPs")
    return Joint(points, law, each, ahead, joint_uncertainty(law, size, samples, ahead, each))


def print_joint(found: Joint, console: Console) -> None:
    """The parameters, the exponents of compute, and the optima."""
    intervals = None if found.uncertainty is None else found.uncertainty.parameters
    title = (
        f"{found.points.label} = E + A / N^α + B / D^β of N parameters and D samples: "
        f"{counted(found.points.rows.height, 'point')}"
    )
    values = {**found.law.parameters, **found.law.exponents}
    say(console, (title, "bold"))
    print_frame(
        parameter_rows(values, intervals), None, console, numbers=("value",), narrow="parameter"
    )
    say(
        console,
        f"N_opt ∝ C^a and D_opt ∝ C^b, with C = {number(found.flops_each)} N D FLOPs, the median "
        "of the points",
    )
    rows = []
    for row in found.optima.rows(named=True):
        told = {"compute": operations(row["flops"])}
        for name in ("parameters", "samples", "predicted"):
            told[name] = number(row[name])
            if found.uncertainty is not None:
                told[f"{name}: 95 % interval"] = written((row[f"{name}_low"], row[f"{name}_high"]))
        rows.append(told)
    print_frame(pl.DataFrame(rows), "Best division of compute", console, narrow="compute")
    if found.uncertainty is None:
        say(console, "no intervals: the law has as many parameters as there are points")
    for name, what in _FALLS_WITH.items():
        low, high = (intervals or {}).get(name, (1.0, 1.0))
        if low <= EXPONENTS[0] * _NEAR or high >= EXPONENTS[1] / _NEAR:
            say(
                console,
                f"these points do not tell {name}, and so no division of compute: measure more "
                f"values of {what}, further apart",
            )
    for remark in found.points.remarks:
        say(console, remark)


def joint_as_data(found: Joint) -> dict[str, Any]:
    """All of it, for JSON."""
    values = {**found.law.parameters, **found.law.exponents}
    intervals = None if found.uncertainty is None else found.uncertainty.parameters
    return {
        "error": found.points.label,
        "points": found.points.rows.to_dicts(),
        "law": "E + A / N^α + B / D^β",
        "parameters": parameters_as_data(values, intervals),
        "flops_each": found.flops_each,
        "optima": found.optima.to_dicts(),
        "remarks": list(found.points.remarks),
    }
