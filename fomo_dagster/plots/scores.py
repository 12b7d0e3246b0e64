"""Pictures of scores: KA against ZS with stages as a path, and every dataset at every stage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator

from fomo_dagster.errors import InputError
from fomo_dagster.metrics import (
    GEOMETRIC_MEAN,
    KNOWLEDGE_ACCUMULATION,
    SCORE,
    ZERO_SHOT_RETENTION,
)
from fomo_dagster.plots.figure import MUTED, ON_DARK, ON_LIGHT, line_of, new_figure, png, tidy

KA, ZS, GM = (
    metric.name for metric in (KNOWLEDGE_ACCUMULATION, ZERO_SHOT_RETENTION, GEOMETRIC_MEAN)
)
BAND = 0.14  # how much of its colour a band has
NUMBERED_POINTS = 40  # points up to which each bears its stage's number
NUMBERED_STAGES = 21  # stages up to which the cells of a heat map bear their values
ROLES = {
    "adaptation": "adaptation datasets (knowledge accumulation)",
    "held_out": "held-out datasets (zero-shot retention)",
}


def paths_plot(scores: pl.DataFrame, title: str = "") -> bytes:
    """Each experiment's path from θ₀ through the plane of KA and ZS, as PNG.

    scores: stage, knowledge_accumulation, zero_shot_retention, and experiment if there are several;
    with `replicates` and the half widths of intervals over these (`…_within`), if there are any,
    which are ellipses, and single runs are marked. Grey lines join points of equal geometric mean.
    A stage where one of the two is not defined has no place in the plane. A note names the
    experiments that are not shown at all.
    """
    named = "experiment" in scores.columns
    if not named:
        scores = scores.with_columns(experiment=pl.lit("this experiment"))
    placed = scores.drop_nulls([KA, ZS]).sort("stage")
    names = sorted(placed["experiment"].unique())
    labels = legend_labels(names, scores, "experiment")
    figure = new_figure(7 + 0.1 * max(map(len, labels), default=0) * named, 5)
    axes = figure.subplots()
    tidy(axes)
    axes.set_title(
        title or "Knowledge accumulation against zero-shot retention, by stage from θ₀ (star)",
        loc="left",
        fontsize=11,
        parse_math=False,
    )
    axes.set_xlabel("knowledge accumulation (%)", fontsize=10)
    axes.set_ylabel("zero-shot retention (%)", fontsize=10)
    for number, name in enumerate(names):
        of_name = placed.filter(pl.col("experiment") == name)
        path = of_name.select("stage", KA, ZS)
        if f"{KA}_within" in of_name.columns:
            ellipses(axes, of_name, line_of(number).color)
        _path(axes, path, labels[number], number, numbered=placed.height <= NUMBERED_POINTS)
    if names:
        axes.margins(0.08)
        if f"{KA}_within" in placed.columns:
            axes.set(xlim=frame_of(placed, KA), ylim=frame_of(placed, ZS))
        equal_geometric_means(axes)
        if named:
            figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    else:
        axes.set(xlim=(0, 100), ylim=(0, 100))
    absent = sorted(set(scores["experiment"]) - set(names))
    if absent:
        note = "not shown, as KA or ZS is not defined: " + ", ".join(absent)
        axes.text(0.02, 0.02, note, transform=axes.transAxes, fontsize=8.5, color=MUTED)
    return png(figure)


def cost_plot(scores: pl.DataFrame, cost: str) -> bytes:
    """Each method's geometric mean over what its stages took together up to then, as PNG, with
    bands of the 95 % intervals over replicates; a method of one run says so.

    scores: method, replicates, stage, geometric_mean, geometric_mean_within, and the column `cost`.
    A stage where one of the two is unknown is left out.
    """
    placed = scores.drop_nulls([cost, GM]).sort("stage")
    names = sorted(placed["method"].unique())
    labels = legend_labels(names, placed, "method")
    figure = new_figure(7 + 0.1 * max(map(len, labels), default=0), 4.5)
    axes = figure.subplots()
    tidy(axes)
    for number, name in enumerate(names):
        path = placed.filter(method=name)
        x, y = path[cost].to_numpy(), path[GM].to_numpy()
        within = path[f"{GM}_within"].cast(pl.Float64).to_numpy()
        line = line_of(number)
        axes.plot(x, y, label=labels[number], markersize=4, **line._asdict())
        if np.isfinite(within).any():
            axes.fill_between(x, y - within, y + within, color=line.color, alpha=BAND, linewidth=0)
    if placed.height:
        axes.set_ylim(frame_of(placed, GM))
    axes.set_xlabel(cost.replace("_", " ") + ", all stages up to this one", fontsize=10)
    axes.set_ylabel("geometric mean of KA and ZS (%)", fontsize=10)
    if names:
        figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    return png(figure)


def heat_map(evaluations: pl.DataFrame, title: str = "") -> bytes:
    """The score of every dataset at every stage, by role, as PNG.

    evaluations: role (`adaptation` or `held_out`), dataset, stage, metric and value in percent;
    only the metric `score` is shown, and `chance` beside a dataset's name, if it is known. A
    dataset without score at a stage is a white cell. Raises `InputError` if there is no score.
    """
    scores = evaluations.filter(pl.col("metric") == SCORE)
    if scores.is_empty():
        raise InputError(f"the heat map {title!r} has no score to show")
    stages = sorted(scores["stage"].unique())
    grids = {
        role: _grid(scores.filter(pl.col("role") == role), stages)
        for role in ROLES
        if role in scores["role"]
    }
    guessed = dict(evaluations.filter(metric="chance").select("dataset", "value").iter_rows())
    heights = [len(names) for names, _ in grids.values()]
    everything = np.concatenate([values.ravel() for _, values in grids.values()])
    limits = Normalize(float(np.nanmin(everything)), float(np.nanmax(everything)))
    numbered = len(stages) <= NUMBERED_STAGES
    width = 3.2 + 0.5 * min(len(stages), NUMBERED_STAGES)
    figure = new_figure(max(width, 6), 1.3 + sum(heights) * 0.28 + 0.3 * len(heights))
    figure.suptitle(title or "Score of each dataset, stage by stage", fontsize=11, parse_math=False)
    panels = figure.subplots(len(grids), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (role, (names, values)) in zip(panels, grids.items(), strict=True):
        cells = axes.imshow(values, cmap="cividis", norm=limits, aspect="auto")
        axes.set_title(ROLES[role], fontsize=9.5, loc="left")
        labels = [
            f"{name} (chance {guessed[name]:.3g})" if name in guessed else name for name in names
        ]
        axes.set_yticks(range(len(names)), labels, fontsize=9, parse_math=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if numbered:
            write_values(axes, values, limits)
    every = -(-len(stages) // NUMBERED_STAGES)
    shown = range(0, len(stages), every)
    panels[-1].set_xticks(shown, [str(stages[i]) for i in shown], fontsize=9)
    panels[-1].set_xlabel("stage (0 is θ₀)", fontsize=10)
    figure.colorbar(cells, ax=list(panels), label="score (%)", fraction=0.05, pad=0.02)
    return png(figure)


def _path(axes: Axes, path: pl.DataFrame, name: str, number: int, *, numbered: bool) -> None:
    """One experiment's line, a star at stage 0 and a larger marker at its last stage."""
    colour, marker, dashes = line_of(number)
    x, y = path[KA].to_numpy(), path[ZS].to_numpy()
    size = 6 if numbered else 3
    axes.plot(x, y, color=colour, linestyle=dashes, marker=marker, markersize=size, label=name)
    axes.plot(x[-1:], y[-1:], color=colour, marker=marker, markersize=9, markeredgecolor="black")
    if path["stage"][0] == 0:
        axes.plot(x[:1], y[:1], "*", color="white", markeredgecolor=colour, markersize=14, zorder=3)
    if numbered:
        for stage, at_x, at_y in path.rows():
            axes.annotate(
                str(stage),
                (at_x, at_y),
                xytext=(6, 5),
                textcoords="offset points",
                fontsize=8,
                color=colour,
            )


def legend_labels(names: Sequence[str], points: pl.DataFrame, by: str) -> list[str]:
    """The names, with a note at single runs where others are means over replicates. points: a row
    each of what the column `by` names, with `replicates` where these are known."""
    if "replicates" not in points.columns or points["replicates"].max() in (None, 1):
        return [*names]
    counts = dict(points.group_by(by).agg(pl.max("replicates")).iter_rows())
    return [f"{name} (one run)".lstrip() if counts.get(name) == 1 else name for name in names]


def ellipses(axes: Axes, path: pl.DataFrame, colour: str) -> None:
    """The intervals of KA and ZS (`…_within`), where both are known."""
    widths = [f"{KA}_within", f"{ZS}_within"]
    for x, y, across, up in path.select(KA, ZS, *widths).drop_nulls().iter_rows():
        axes.add_patch(
            Ellipse((x, y), 2 * across, 2 * up, facecolor=colour, alpha=BAND, edgecolor="none")
        )


def frame_of(points: pl.DataFrame, metric: str) -> tuple[float, float]:
    """Where an axis begins and ends: around all means, and around their intervals as far as these
    are no wider than all means are apart, as those of two replicates mostly are."""
    known = points.drop_nulls(metric)
    means = known[metric].to_numpy()
    within = known[f"{metric}_within"].cast(pl.Float64).fill_null(0).to_numpy()
    low, high = float(means.min()), float(means.max())
    span = max(high - low, 2.0)
    low = max(low - span, float((means - within).min()))
    high = min(high + span, float((means + within).max()))
    margin = 0.06 * max(high - low, 2.0)
    return max(low - margin, -margin / 3), min(high + margin, 100 + margin / 3)


def equal_geometric_means(axes: Axes) -> None:
    """Draw grey contours of GM = √(KA·ZS) behind the data, within the limits it has set."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    x, y = np.meshgrid(np.linspace(max(left, 0), right, 200), np.linspace(max(low, 0), high, 200))
    gm = np.sqrt(x * y)
    levels = MaxNLocator(6).tick_values(float(gm.min()), float(gm.max()))
    contours = axes.contour(x, y, gm, levels, colors="#b9b9b9", linewidths=0.7, zorder=0)
    axes.clabel(contours, fmt=lambda level: f"GM {level:g}", fontsize=7.5, colors=MUTED)
    axes.set(xlim=(left, right), ylim=(low, high))


def write_values(
    axes: Axes, values: npt.NDArray[np.float64], limits: Normalize, digits: int = 1
) -> None:
    """Write each value into its cell, in the colour that stands out from it."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = ON_LIGHT if limits(value) > 0.47 else ON_DARK
            axes.text(
                column, row, f"{value:.{digits}f}", ha="center", va="center", fontsize=8,
                color=colour,
            )  # fmt: skip


def _grid(scores: pl.DataFrame, stages: list[int]) -> tuple[list[str], npt.NDArray[np.float64]]:
    """The datasets by name, and (datasets, stages) values with NaN where there is none."""
    names = sorted(scores["dataset"].unique())
    values = np.full((len(names), len(stages)), np.nan)
    for dataset, stage, value in scores.select("dataset", "stage", "value").rows():
        values[names.index(dataset), stages.index(stage)] = value
    return names, values
