"""What `fomo fit` shows: a law of what experiments measured, and what it says of larger ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console

from fomo_dagster.cli.measures import metric_named
from fomo_dagster.cli.output import say
from fomo_dagster.cli.rows import print_frame
from fomo_dagster.errors import InputError, nearest
from fomo_dagster.home import Home
from fomo_dagster.metrics import Metric
from fomo_dagster.statistics.answers import Floats
from fomo_dagster.statistics.extrapolation import (
    Chosen,
    Range,
    Uncertainty,
    choose,
    uncertainty,
)
from fomo_dagster.statistics.scaling_laws import LAWS
from fomo_dagster.tables.model_sizes import model_sizes
from fomo_dagster.tables.trajectories import experiments_of, trajectories
from fomo_dagster.units import counted, number

AGAINST = ("samples", "flops", "parameters", "stages")
_GRID = 60  # points of a drawn curve
_TOLD_APART = ("backbone", "stream", "method", "preserve", "technique", "batch_size")


@dataclass(frozen=True)
class Points:
    """What experiments measured. rows: experiment, stage, error, and each of AGAINST as far as it
    was asked for; label: what the error is; most: how large it can be; remarks: what was left out,
    and what else to know."""

    rows: pl.DataFrame
    label: str
    most: float
    remarks: tuple[str, ...]

    def column(self, name: str) -> Floats:
        return self.rows[name].cast(pl.Float64).to_numpy()


def read_points(
    home: Home, references: Sequence[str], metric: str | None, dataset: str | None,
    columns: Sequence[str], *, every_stage: bool,
) -> Points:  # fmt: skip
    """The errors of experiments at their last stages, or at all after θ₀.

    metric: GM by default, of a dataset its score; where more is better, the error is 100 less it.
    columns: which of AGAINST. Raises `InputError` for what is not there, and for a metric that is
    neither an error nor a share.
    """
    for name in columns:
        if name not in AGAINST:
            raise InputError(f"there is no law against {name!r}: {nearest(name, AGAINST)}")
    measured = metric_named(metric, dataset)
    label, error, most = _error(measured)
    experiments = experiments_of(home.root, references)
    names = experiments["experiment"].to_list()
    rows = trajectories(home.root, names, measured, [dataset] if dataset else [])
    if every_stage:
        rows = rows.filter(pl.col("stage") > 0)
    else:
        rows = rows.filter(pl.col("stage") == pl.col("stage").max().over("experiment"))
    rows = rows.with_columns(stages="stage").join(
        experiments.select("experiment", backbone="own_backbone"), on="experiment", how="left"
    )
    if "parameters" in columns:
        sizes = model_sizes(home, rows["backbone"].unique().to_list())
        rows = rows.with_columns(
            parameters=pl.col("backbone").replace_strict(sizes, return_dtype=pl.Int64)
        )
    whole = (
        rows.with_columns(error=error).drop_nulls(["error", *columns]).sort(*columns, "experiment")
    )
    remarks = []
    if whole.height < rows.height:
        remarks.append(
            f"left out: {counted(rows.height - whole.height, 'point')} without "
            f"{measured.label} or {' or '.join(columns)}"
        )
    for name in _TOLD_APART:
        values = experiments[name].drop_nulls().unique().sort().to_list()
        if len(values) > 1 and not ("parameters" in columns and name == "backbone"):
            remarks.append(f"the points differ in {name} as well: {', '.join(map(str, values))}")
    where = f" of {dataset}" if dataset else ""
    return Points(
        whole.select("experiment", "stage", "error", *columns), label + where, most, tuple(remarks)
    )


def _error(metric: Metric) -> tuple[str, pl.Expr, float]:
    """What a law of decay can be of, and how large it can be."""
    if metric.unit == "points":
        raise InputError(
            f"{metric.label} is a difference, in {metric.unit}, and no error that falls to a "
            "limit: choose another metric, such as geometric_mean"
        )
    if metric.best == "low":
        return metric.label, pl.col("value"), metric.most if metric.unit == "%" else math.inf
    return f"100 - {metric.label}", 100 - pl.col("value"), 100.0


def places_ahead(at: Sequence[float], largest: float, against: str) -> Floats:
    """Where a law looks ahead: at what `--at` asks for, by default an octave above the largest.
    Raises `InputError` for what is no positive number."""
    for one in at:
        if not (math.isfinite(one) and one > 0):
            raise InputError(f"--at is {one:g}: expected a positive number of {against}")
    return np.array(at or [2 * largest], dtype=np.float64)


@dataclass(frozen=True)
class Extrapolated:
    """A law with its intervals. before: of what was held out, by the law without it; ahead: of
    `at`, by the law with all points, and then of `grid`, at which it is drawn."""

    points: Points
    against: str
    chosen: Chosen
    before: Uncertainty | None
    ahead: Uncertainty | None
    at: Floats
    grid: Floats

    @property
    def held_out(self) -> pl.DataFrame:
        """A row for each point held out."""
        rows = self.points.rows.filter(pl.Series(self.chosen.held_out))
        x = rows[self.against].cast(pl.Float64).to_numpy()
        found = rows.select("experiment", "stage", self.against, measured="error")
        return self._predicted(found, self.chosen.before.at(x), self.before)

    @property
    def forecast(self) -> pl.DataFrame:
        """A row for each x asked for."""
        found = pl.DataFrame({self.against: self.at})
        return self._predicted(found, self.chosen.fit.at(self.at), self.ahead)

    def _predicted(
        self, frame: pl.DataFrame, values: Floats, found: Uncertainty | None
    ) -> pl.DataFrame:
        bounds = [(None, None)] * len(values) if found is None else found.values[: len(values)]
        low, high = zip(*bounds, strict=True)
        most = self.points.most
        return frame.with_columns(
            pl.Series("predicted", values, pl.Float64).clip(upper_bound=most),
            pl.Series("low", low, pl.Float64).clip(upper_bound=most),
            pl.Series("high", high, pl.Float64).clip(upper_bound=most),
        )


def extrapolated(
    points: Points, against: str, hold_out: int, law: str | None, at: Sequence[float]
) -> Extrapolated:
    """The law that extrapolates best, or the one of that name. at: where to look ahead; by default
    an octave above the largest. Raises `InputError` as `choose` and `places_ahead` do."""
    if law is not None and law not in LAWS:
        raise InputError(f"there is no law {law!r}: {nearest(law, LAWS)}")
    x, y = points.column(against), points.column("error")
    try:
        chosen = choose(x, y, hold_out, [LAWS[law]] if law else tuple(LAWS.values()))
    except InputError as error:
        raise InputError(f"{points.label} against {against}: {error}") from error
    ahead = places_ahead(at, x.max(), against)
    grid = np.geomspace(x.min(), max(x.max(), ahead.max()), _GRID)
    kept = ~chosen.held_out
    return Extrapolated(
        points, against, chosen,
        uncertainty(chosen.before, x[kept], x[chosen.held_out]),
        uncertainty(chosen.fit, x, np.concatenate([ahead, grid])), ahead, grid,
    )  # fmt: skip


def print_law(found: Extrapolated, console: Console) -> None:
    """The laws that were tried, the one chosen, what it said of the points held out, and what it
    says of larger ones."""
    chosen, fit = found.chosen, found.chosen.fit
    rows, places = found.points.rows, found.points.rows[found.against].n_unique()
    title = (
        f"{found.points.label} against {found.against}: {counted(rows.height, 'point')} at "
        f"{counted(places, 'value')}, {int(chosen.held_out.sum())} held out"
    )
    tried = pl.DataFrame(
        [
            {
                "law": trial.law.name, "formula": trial.law.formula,
                "loss": "too few points" if trial.loss is None else f"{trial.loss:.4f}",
                "": "chosen" if trial.law is fit.law else "",
            }
            for trial in chosen.trials
        ]
    )  # fmt: skip
    say(console, (title, "bold"))
    print_frame(tried, None, console, numbers=("loss",), narrow="formula")
    say(console, "loss: root mean square of ln(predicted / measured) of the points held out")
    print_frame(
        parameter_rows(fit.parameters, None if found.ahead is None else found.ahead.parameters),
        f"{fit.law.name}, fitted to all points", console, numbers=("value",), narrow="parameter",
    )  # fmt: skip
    for title, frame in (
        ("Held out, by the law fitted without them", found.held_out),
        ("Ahead, by the law fitted to all", found.forecast),
    ):
        print_frame(shown(frame), title, console, numbers=(found.against,))
    if found.ahead is None:
        say(console, "no intervals: the law has as many parameters as there are points")
    elif found.before is None:
        say(
            console,
            "no interval of what was held out: the law has a parameter for each other point",
        )
    for remark in found.points.remarks:
        say(console, remark)


def drawing(found: Extrapolated, suffix: str) -> bytes:
    """The points, the law with its interval, and the one without the points held out, as a picture.
    Raises `InputError` as `drawn` does."""
    from fomo_dagster.plots.laws import Curve, Series, law_plot

    fit, grid, held_out = found.chosen.fit, found.grid, found.chosen.held_out
    x, y = found.points.column(found.against), found.points.column("error")
    bounds = () if found.ahead is None else found.ahead.values[len(found.at) :]
    most = found.points.most
    curves = [
        Curve(
            f"{fit.law.name}: {fit.law.formula}", grid, np.minimum(fit.at(grid), most),
            [min(low, most) for low, _ in bounds], [min(high, most) for _, high in bounds],
        ),
        Curve(
            "fitted without those held out", grid,
            np.minimum(found.chosen.before.at(grid), most), dashed=True,
        ),
    ]  # fmt: skip
    series = Series("measured", x[~held_out], y[~held_out], x[held_out], y[held_out], curves)
    return law_plot([series], found.against, found.points.label, suffix)


def law_as_data(found: Extrapolated) -> dict[str, Any]:
    """All of it, for JSON."""
    fit, ahead = found.chosen.fit, found.ahead
    return {
        "error": found.points.label,
        "against": found.against,
        "points": found.points.rows.to_dicts(),
        "laws": [
            {
                "law": trial.law.name, "formula": trial.law.formula, "loss": trial.loss,
                "parameters": None if trial.fit is None else trial.fit.parameters,
            }
            for trial in found.chosen.trials
        ],
        "law": fit.law.name,
        "parameters": parameters_as_data(
            fit.parameters, None if ahead is None else ahead.parameters
        ),
        "held_out": found.held_out.to_dicts(),
        "ahead": found.forecast.to_dicts(),
        "remarks": list(found.points.remarks),
    }  # fmt: skip


def parameter_rows(
    parameters: Mapping[str, float], intervals: Mapping[str, Range] | None
) -> pl.DataFrame:
    """A row for each parameter."""
    return pl.DataFrame(
        [
            {
                "parameter": name, "value": number(value),
                "95 % interval": "" if intervals is None else written(intervals[name]),
            }
            for name, value in parameters.items()
        ]
    )  # fmt: skip


def parameters_as_data(
    parameters: Mapping[str, float], intervals: Mapping[str, Range] | None
) -> dict[str, dict[str, float | None]]:
    """Name → value, low and high."""
    low, high = (
        {} if intervals is None else {n: i[k] for n, i in intervals.items()} for k in (0, 1)
    )
    return {
        name: {"value": value, "low": low.get(name), "high": high.get(name)}
        for name, value in parameters.items()
    }


def written(interval: Range) -> str:
    """An interval for people."""
    return f"{number(interval[0])} to {number(interval[1])}"


def shown(frame: pl.DataFrame) -> pl.DataFrame:
    """Predictions for people: whole numbers of x, and the interval as one column."""
    x = [name for name in AGAINST if name in frame.columns]
    return frame.select(
        pl.exclude(*x, "low", "high"),
        pl.col(x).map_elements(number, pl.String),
        pl.struct("low", "high")
        .map_elements(
            lambda row: "" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}",
            pl.String,
        )
        .alias("95 % interval"),
    ).select(*(name for name in frame.columns if name not in ("low", "high")), "95 % interval")
