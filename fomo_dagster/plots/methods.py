"""Figures of methods side by side: means over their replicates, with bands of 95 % intervals.

In all of them `names` are the methods in the order that gives each its line. A column `…_within` is
the half width of an interval, null where there is one replicate; where there is a column
`replicates`, legends mark single runs beside means.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from fomo_dagster.metrics import STAGE_METRICS
from fomo_dagster.plots.figure import COLOURS, MUTED, line_of, new_figure, tidy
from fomo_dagster.plots.scores import (
    BAND,
    GM,
    KA,
    ZS,
    ellipses,
    equal_geometric_means,
    frame_of,
    legend_labels,
    write_values,
)

LABELS = {metric.name: f"{metric.label} (%)" for metric in STAGE_METRICS}
NUMBERED_METHODS = 4  # up to which all points of paths bear their stages and intervals
LEGEND_LINE = 0.185  # inches
TITLE_WIDTH = 24  # characters of a line
PANELS = 3  # in a row
WIDTH = 8.0  # inches


def paths_figure(stages: pl.DataFrame, names: Sequence[str], oracles: Collection[str]) -> Figure:
    """Paths of methods from θ₀ through the plane of KA and ZS.

    stages: method, stage, and KA and ZS with their half widths, which are drawn as ellipses, of
    many methods those of the last stage. The oracles, which know all stages at once, are a diamond
    each.
    """
    placed = stages.drop_nulls([KA, ZS])
    labels = legend_labels(names, placed, "method")
    figure = new_figure(WIDTH, 4.6 + _legend_height([*labels, "θ₀"]))
    axes = figure.subplots()
    tidy(axes)
    axes.set_xlabel(f"knowledge accumulation, {LABELS[KA]}", fontsize=10)
    axes.set_ylabel(f"zero-shot retention, {LABELS[ZS]}", fontsize=10)
    for number, name in enumerate(names):
        path = placed.filter(method=name)
        if path.is_empty():
            continue
        of_oracle = name in oracles
        last = path.filter(pl.col("stage") == path["stage"].max())
        all_have_one = len(names) <= NUMBERED_METHODS and not of_oracle
        ellipses(axes, path if all_have_one else last, COLOURS[number % len(COLOURS)])
        if of_oracle:
            _final_point(axes, path, labels[number], number)
        else:
            _path(axes, path, labels[number], number, numbered=len(names) <= NUMBERED_METHODS)
    starts = placed.filter(stage=0).select(KA, ZS).unique(maintain_order=True)
    if starts.height:
        axes.plot(starts[KA], starts[ZS], "*", color="white", markeredgecolor="black",
                  markersize=14, zorder=4, label="θ₀", linestyle="none")  # fmt: skip
    if placed.height:
        axes.set(xlim=frame_of(placed, KA), ylim=frame_of(placed, ZS))
        equal_geometric_means(axes)
    _legend(figure, axes)
    return figure


def over_stages_figure(
    stages: pl.DataFrame, names: Sequence[str], oracles: Collection[str], against: str = "stage"
) -> Figure:
    """KA, ZS and GM side by side over the stages, or over a cost that the column `against` has.

    stages: method, stage, scores with their half widths. Oracles are level dashes over stages,
    and a point over a cost.
    """
    shown = [metric for metric in (KA, ZS, GM) if stages[metric].is_not_null().any()]
    labels = legend_labels(names, stages, "method")
    figure = new_figure(WIDTH, 3.2 + _legend_height(labels))
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, metric in zip(panels, shown, strict=True):
        tidy(axes)
        axes.set_ylim(frame_of(stages, metric))
        axes.set_title(LABELS[metric], fontsize=10, loc="left")
        axes.set_xlabel("FLOPs" if against == "flops" else against, fontsize=10)
        if against == "stage":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            axes.xaxis.set_major_formatter(EngFormatter(sep="\N{THIN SPACE}"))
            axes.xaxis.set_major_locator(MaxNLocator(4))
        for number, name in enumerate(names):
            path = stages.filter(method=name).drop_nulls([metric, against])
            if path.is_empty():
                continue
            if name not in oracles:
                _curve(axes, path, metric, against, labels[number], number)
            elif against == "stage":
                axes.axhline(path[metric][-1], label=labels[number], linestyle=(0, (6, 3)),
                             linewidth=1.2, color=COLOURS[number % len(COLOURS)])  # fmt: skip
            else:
                axes.plot(path[against][-1:], path[metric][-1:], "D", label=labels[number],
                          markersize=7, color=COLOURS[number % len(COLOURS)])  # fmt: skip
    _legend(figure, panels[0])
    return figure


def matrices_figure(matrix: pl.DataFrame, names: Sequence[str]) -> Figure:
    """A panel a method: the score after each stage on the concepts of each chunk, as numbered
    cells; below a chunk's number what guessing scores, if it is known.

    matrix: method, stage, chunk, score and chance in percent.
    """
    return _after_stages(matrix, names, "chunk", ("after stage", "concepts of chunk"))


def windows_figure(windows: pl.DataFrame, names: Sequence[str]) -> Figure:
    """As `matrices_figure`, on the test samples of each time window; a stage's row says until when
    it was trained on.

    windows: method, stage, trained_until, tested_on, score and chance in percent.
    """
    named = "trained until: after stage", "test samples of"
    return _after_stages(windows, names, "tested_on", named)


def _after_stages(
    scores: pl.DataFrame, names: Sequence[str], column: str, axes_named: tuple[str, str]
) -> Figure:
    names = [name for name in names if name in scores["method"]]
    rows = -(-len(names) // PANELS)
    columns = min(PANELS, len(names))
    stages = scores["stage"].n_unique()
    height = 0.9 + max(1.2, (WIDTH / max(columns, 2)) * 0.8 * min(1.4, stages / 6 + 0.25))
    figure = new_figure(WIDTH if columns > 1 else WIDTH / 1.6, height * rows)
    limits = _limits(scores["score"])
    cells = [_labelled(scores.filter(method=name), column) for name in names]
    alike_below, alike_over = (
        all(one[place] == cells[0][place] for one in cells) for place in (0, 1)
    )
    panels = figure.subplots(rows, columns, squeeze=False, sharex=alike_over, sharey=alike_below)
    for axes, name, of_method in zip(panels.flat, names, cells, strict=False):
        _cells(axes, of_method, limits, digits=0)
        _name(axes, name)
    _hide_rest(panels, len(names))
    down, across = axes_named
    across += "\nand chance (%)" if scores["chance"].is_not_null().any() else ""
    _legend_of_cells(figure, panels, (down, across), "score (%)")
    return figure


def _labelled(of_method: pl.DataFrame, column: str) -> Cells:
    """Stages, until when they were trained on if there is a column of it, over a column and what
    guessing scores on it."""
    stages, over, values = cells_of(of_method, "stage", column, "score")
    until = {}
    if "trained_until" in of_method.columns:
        until = dict(of_method.select("stage", "trained_until").drop_nulls().iter_rows())
    guessed = dict(of_method.select(column, "chance").drop_nulls().iter_rows())
    return (
        [f"{until[n]}: {n}" if n in until else n for n in stages],
        [f"{n}\n{guessed[n]:.2g}" if n in guessed else n for n in over],
        values,
    )


def grid_figure(grid: pl.DataFrame) -> Figure:
    """A panel a technique: rows are what stages start from, columns what is deployed.

    grid: technique, start_from, deploy, and the score that the column GM has.
    """
    techniques = grid["technique"].unique(maintain_order=True).to_list()
    limits = _limits(grid[GM])
    columns = min(PANELS, len(techniques))
    rows = -(-len(techniques) // columns)
    starts, deploys = (grid[name].unique().sort() for name in ("start_from", "deploy"))
    height = 0.9 + 0.42 * len(starts)
    width = min(WIDTH, 2.4 + columns * (0.6 + 0.95 * len(deploys)))
    figure = new_figure(width, max(1.9, height) * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, technique in zip(panels.flat, techniques, strict=False):
        cells = np.full((len(starts), len(deploys)), np.nan)
        for start, deploy, value in (
            grid.filter(technique=technique).select("start_from", "deploy", GM).iter_rows()
        ):
            cells[starts.to_list().index(start), deploys.to_list().index(deploy)] = value
        _cells(axes, (starts.to_list(), deploys.to_list(), cells), limits, digits=1)
        _name(axes, technique)
    _hide_rest(panels, len(techniques))
    _legend_of_cells(figure, panels, ("starts from", "deploys"), LABELS[GM])
    return figure


def responses_figure(points: pl.DataFrame, setting: str) -> Figure:
    """KA, ZS and GM side by side over the values of a setting, a line for each `others`.

    points: others, value, scores with their half widths. Values that span more than a magnitude
    are set logarithmically.
    """
    shown = [metric for metric in (KA, ZS, GM) if points[metric].is_not_null().any()]
    lines = points["others"].unique(maintain_order=True).to_list()
    labels = legend_labels(lines, points, "others")
    figure = new_figure(WIDTH, 3 + _legend_height(labels))
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    values = points["value"].unique().sort()
    for axes, metric in zip(panels, shown, strict=True):
        tidy(axes)
        axes.set_ylim(frame_of(points, metric))
        axes.set_title(LABELS[metric], fontsize=10, loc="left")
        axes.set_xlabel(setting, fontsize=10, parse_math=False)
        if values[0] > 0 and values[-1] > 10 * values[0] * (1 - 1e-9):
            axes.set_xscale("log")
        axes.set_xticks(values.to_list(), [f"{value:g}" for value in values])
        axes.minorticks_off()
        if len(values) > 5:
            axes.tick_params(axis="x", labelrotation=45)
        for number, others in enumerate(lines):
            line = points.filter(others=others).drop_nulls(metric).sort("value")
            _curve(axes, line, metric, "value", labels[number], number)
    if len(lines) > 1 or lines[0]:
        _legend(figure, panels[0])
    return figure


def differences_figure(differences: pl.DataFrame, unit: str, against: str) -> Figure:
    """A panel a method: its difference on each dataset as a point with its interval, the worst
    first.

    differences: method, name, role, estimate, low and high, in the order in which to show them.
    """
    names = differences["method"].unique(maintain_order=True).to_list()
    columns = min(PANELS, len(names))
    rows = -(-len(names) // columns)
    most = max(differences.group_by("method").len()["len"])
    figure = new_figure(WIDTH if columns > 1 else WIDTH / 1.35, rows * (0.9 + 0.21 * most))
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True)
    roles = dict(zip(("adaptation", "held_out"), COLOURS, strict=False))
    for axes, name in zip(panels.flat, names, strict=False):
        tidy(axes)
        axes.axvline(0, color=MUTED, linewidth=1)
        of_method = differences.filter(method=name).with_row_index("place")
        for role, colour in roles.items():
            part = of_method.filter(role=role)
            if part.is_empty():
                continue
            estimate = part["estimate"].to_numpy()
            width = np.abs(part.select("low", "high").to_numpy().T - estimate)
            axes.errorbar(estimate, part["place"].to_numpy(), xerr=width, fmt="o", markersize=4,
                          color=colour, elinewidth=1.4, label=role.replace("_", " "))  # fmt: skip
        axes.set_yticks(of_method["place"].to_list(), of_method["name"].to_list(), fontsize=8,
                        parse_math=False)  # fmt: skip
        axes.set_ylim(of_method.height - 0.5, -0.5)
        _name(axes, name)
    _hide_rest(panels, len(names))
    figure.supxlabel(f"difference to {against} ({unit})", fontsize=9, parse_math=False)
    handles = {
        label: handle
        for axes in panels.flat
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=2,
                  fontsize=8.5, frameon=False)  # fmt: skip
    return figure


Cells = tuple[list[object], list[object], npt.NDArray[np.float64]]


def cells_of(frame: pl.DataFrame, row: str, column: str, value: str) -> Cells:
    """The values of two columns in order, and between them those of a third; NaN where none."""
    rows, columns = (frame[name].unique().sort().to_list() for name in (row, column))
    cells = np.full((len(rows), len(columns)), np.nan)
    for at_row, at_column, of_cell in frame.select(row, column, value).iter_rows():
        cells[rows.index(at_row), columns.index(at_column)] = of_cell
    return rows, columns, cells


def _legend_of_cells(
    figure: Figure, panels: npt.NDArray[Any], axes_named: tuple[str, str], label: str
) -> None:
    """Names of rows and columns at the outer panels, and the scale of the colours of all."""
    for axes in panels[:, 0]:
        axes.set_ylabel(axes_named[0], fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel(axes_named[1], fontsize=9)
    mesh = panels[0, 0].collections[0]
    figure.colorbar(mesh, ax=list(panels.flat), label=label, fraction=0.05, pad=0.02)


def _hide_rest(panels: npt.NDArray[Any], used: int) -> None:
    """Leave empty what the last row has too many; those above get its numbers."""
    every: list[Axes] = list(panels.flat)
    for number in range(used, len(every)):
        every[number].set_axis_off()
        every[number - panels.shape[1]].tick_params(labelbottom=True)


def _name(axes: Axes, name: str) -> None:
    """A panel's title, in lines that are no wider than one of several panels."""
    lines = textwrap.wrap(name.replace("_", "_ "), TITLE_WIDTH)
    told = "\n".join(line.replace("_ ", "_") for line in lines)
    axes.set_title(told, fontsize=9, loc="left", parse_math=False)


def _limits(values: pl.Series) -> Normalize:
    known = values.drop_nulls().to_numpy()
    return Normalize(float(known.min()), float(known.max()))


def _cells(axes: Axes, cells: Cells, limits: Normalize, digits: int) -> None:
    """Numbered cells as vectors."""
    rows, columns, values = cells
    edges = (np.arange(size + 1) - 0.5 for size in (len(columns), len(rows)))
    axes.pcolormesh(*edges, values, cmap="cividis", norm=limits, edgecolors="white", linewidth=0.6)
    names = [str(name).replace("_", "\n") for name in columns]
    axes.set_yticks(range(len(rows)), list(map(str, rows)), fontsize=8.5)
    axes.set_xticks(range(len(columns)), names, fontsize=8.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if len(columns) <= 12:
        write_values(axes, values, limits, digits)


def _path(axes: Axes, path: pl.DataFrame, name: str, number: int, *, numbered: bool) -> None:
    line = line_of(number)
    x, y = path[KA].to_numpy(), path[ZS].to_numpy()
    axes.plot(x, y, label=name, markersize=5, **line._asdict())
    axes.plot(x[-1:], y[-1:], color=line.color, marker=line.marker, markersize=9,
              markeredgecolor="black")  # fmt: skip
    for stage, at_x, at_y in path.select("stage", KA, ZS).iter_rows():
        if numbered and stage > 0:
            axes.annotate(str(stage), (at_x, at_y), xytext=(6, 5), textcoords="offset points",
                          fontsize=8, color=line.color)  # fmt: skip


def _final_point(axes: Axes, path: pl.DataFrame, name: str, number: int) -> None:
    colour = COLOURS[number % len(COLOURS)]
    axes.plot(path[KA][-1:], path[ZS][-1:], "D", color=colour, markersize=9, label=name,
              markeredgecolor="black", linestyle="none")  # fmt: skip


def _curve(
    axes: Axes, path: pl.DataFrame, metric: str, against: str, name: str, number: int
) -> None:
    line = line_of(number)
    x, y = path[against].to_numpy(), path[metric].to_numpy()
    axes.plot(x, y, label=name, markersize=4, linewidth=1.4, **line._asdict())
    within = path[f"{metric}_within"].cast(pl.Float64).to_numpy()
    if np.isfinite(within).any():
        axes.fill_between(x, y - within, y + within, color=line.color, alpha=BAND, linewidth=0)


def _legend(figure: Figure, axes: Axes) -> None:
    """Above the panels, in rows that fit."""
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside upper left", fontsize=8.5,
                           frameon=False, ncols=_legend_columns(labels))  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def _legend_columns(labels: Sequence[str]) -> int:
    longest = max(map(len, labels), default=0)
    return max(1, min(6, len(labels), int(105 / (longest + 6))))


def _legend_height(labels: Sequence[str]) -> float:
    """In inches."""
    return LEGEND_LINE * -(-len(labels) // _legend_columns(labels))
