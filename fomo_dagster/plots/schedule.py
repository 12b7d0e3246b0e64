"""Learning rates over the stages of an experiment."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from matplotlib.axes import Axes

from fomo_dagster.plots.figure import COLOURS, MUTED, new_figure, png, tidy

_TOWERS = ("image_tower", "text_tower")


def learning_rate_plot(rates: pl.DataFrame, title: str) -> bytes:
    """The learning rate of each step, the stages one after the other, as PNG.

    rates: stage, step, learning_rate, image_tower and text_tower, in order, for each step.
    """
    figure = new_figure(8, 3)
    axes = figure.subplots()
    apart = any((rates[tower] != rates["learning_rate"]).any() for tower in _TOWERS)
    columns = _TOWERS if apart else ("learning_rate",)
    for column, colour in zip(columns, COLOURS, strict=False):
        _draw(axes, rates, column, colour)
    if apart:
        axes.legend(frameon=False, fontsize=9)
    axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=11, parse_math=False)
    axes.set_ylabel("learning rate", fontsize=10)
    axes.set_xlabel("step; dotted: a new stage begins", fontsize=10)
    return png(figure)


def schedules_plot(schedules: Mapping[str, pl.DataFrame]) -> bytes:
    """Schedules by name, in panels of two columns, as PNG; each as in `learning_rate_plot`."""
    rows = (len(schedules) + 1) // 2
    figure = new_figure(7.5, 1.1 * rows)
    panels = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False)
    for axes, (name, rates) in zip(panels.flat, schedules.items(), strict=False):
        _draw(axes, rates, "learning_rate", COLOURS[0])
        axes.set_ylim(bottom=0)
        axes.set_title(name, fontsize=9, parse_math=False)
        axes.tick_params(labelsize=7)
    for axes in list(panels.flat)[len(schedules) :]:
        axes.set_axis_off()
    return png(figure)


def _draw(axes: Axes, rates: pl.DataFrame, column: str, colour: str) -> None:
    tidy(axes)
    before = 0
    for _, of_stage in rates.group_by("stage", maintain_order=True):
        steps = range(before, before + of_stage.height)
        label = None if before else column.replace("_", " ")
        axes.plot(steps, of_stage[column].to_list(), color=colour, linewidth=1.4, label=label)
        if before:
            axes.axvline(before - 0.5, color=MUTED, linewidth=0.6, linestyle=":")
        before += of_stage.height
    axes.set_xlim(-1, before)
    axes.ticklabel_format(axis="y", scilimits=(-2, 3))
