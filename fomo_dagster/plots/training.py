"""A training at a glance: loss, learning rate and throughput by step."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fomo_dagster.errors import InputError
from fomo_dagster.plots.figure import COLOURS, MUTED, new_figure, png, tidy

SMOOTHED_FROM = 60  # steps from which a running mean says more than the noise


def training_plot(steps: pl.DataFrame, title: str = "") -> bytes:
    """Loss, learning rate and samples a second by step, as PNG.

    steps: rows of `training_steps` with loss, learning_rate and samples_per_second, in order; of
    one stage, or of several one after the other where there is a column stage. Raises
    `InputError` if there is none.
    """
    if steps.is_empty():
        raise InputError(f"the training {title!r} has no steps to show")
    # Every stage has this picture: fixed margins, since finding them takes a third of the drawing.
    figure = new_figure(8, 6, layout=None)
    figure.subplots_adjust(
        left=0.115, right=0.985, bottom=0.085, top=0.92 if title else 0.975, hspace=0.16
    )
    if title:
        figure.suptitle(title, fontsize=12, parse_math=False)
    panels = figure.subplots(3, 1, sharex=True, height_ratios=[2, 1, 1])
    borders = _borders(steps)
    columns = ("loss", "learning_rate", "samples_per_second")
    for axes, column, colour in zip(panels, columns, COLOURS, strict=False):
        values = steps[column].cast(pl.Float64).to_numpy()
        tidy(axes)
        _curve(axes, values, borders, colour, smooth=column != "learning_rate")
        axes.set_ylabel(column.replace("_", " "), fontsize=10)
        axes.yaxis.set_label_coords(-0.09, 0.5)
        axes.ticklabel_format(axis="y", scilimits=(-2, 5))
        for border in borders:
            axes.axvline(border + 0.5, color=MUTED, linewidth=0.6, linestyle=":")
    panels[2].set_ylim(0, 1.15 * float(values.max()))
    notes = ["step"]
    if steps.height >= SMOOTHED_FROM:
        notes.append(f"bold: mean of the last {_window(steps.height)}")
    if borders:
        notes.append("dotted: a new stage begins")
    panels[2].set_xlabel("; ".join(notes), fontsize=10)
    panels[2].set_xlim(0, steps.height + 1)
    panels[2].xaxis.set_major_locator(MaxNLocator(integer=True))
    return png(figure)


def running_mean(values: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """values: (N,). Mean over the `window` values that end at each position, fewer at the start."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    means: npt.NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def _curve(
    axes: Axes,
    values: npt.NDArray[np.float64],
    borders: list[int],
    colour: str,
    *,
    smooth: bool,
) -> None:
    """One line for each stage; where there are many steps, its mean over the faint noise."""
    noisy = smooth and len(values) >= SMOOTHED_FROM
    width, alpha = (0.7, 0.35) if noisy else (1.6, 1.0)
    for start, end in pairwise([0, *borders, len(values)]):
        position, part = np.arange(start, end) + 1, values[start:end]
        marker = "o" if len(part) == 1 else None
        axes.plot(position, part, color=colour, linewidth=width, alpha=alpha, marker=marker)
        if noisy:
            means = running_mean(part, _window(len(values)))
            axes.plot(position, means, color=colour, linewidth=1.8)


def _window(steps: int) -> int:
    return max(5, steps // 40)


def _borders(steps: pl.DataFrame) -> list[int]:
    """How many steps come before each stage but the first."""
    if "stage" not in steps.columns:
        return []
    stages = steps["stage"].to_numpy()
    return [int(i) + 1 for i in np.flatnonzero(stages[1:] != stages[:-1])]
