"""Reliability diagrams: how often predictions are right, over how sure the model is of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import polars as pl

from fomo_dagster.plots.figure import COLOURS, MARKERS, MUTED, new_figure, png, tidy

COLUMNS = 4
MOST_PANELS = 40  # datasets; of more, the first are shown


def reliability_plot(panels: Mapping[str, Mapping[str, pl.DataFrame]], title: str = "") -> bytes:
    """A panel for each dataset, with a curve for each label, as PNG.

    panels: dataset → label → bins with `confidence`, `accuracy` (from 0 to 1) and `images`. A
    marker is the larger the more images its bin has. On the diagonal, a model is as often right as
    it is sure. A label looks alike in all panels.
    """
    shown = dict(list(panels.items())[:MOST_PANELS])
    labels = list(dict.fromkeys(label for curves in shown.values() for label in curves))
    columns = min(COLUMNS, max(1, len(shown)))
    rows = max(1, math.ceil(len(shown) / columns))
    figure = new_figure(max(4.2, 2.9 * columns), 2.8 * rows + 0.9)
    left_out = len(panels) - len(shown)
    figure.suptitle(
        (title or "Reliability") + (f" (without {left_out} more datasets)" if left_out else ""),
        fontsize=11, parse_math=False,
    )  # fmt: skip
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(shown):
            axes.set_visible(False)
            continue
        dataset, curves = list(shown.items())[place]
        axes.plot((0, 1), (0, 1), color=MUTED, linewidth=0.8, linestyle=":")
        for label, bins in curves.items():
            number = labels.index(label)
            x, y = bins["confidence"].to_numpy(), bins["accuracy"].to_numpy()
            share = bins["images"].to_numpy() / max(1, bins["images"].sum())
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(x, y, color=colour, linewidth=1.2)
            axes.scatter(
                x, y, s=8 + 90 * share, color=colour, label=label,
                marker=MARKERS[number % len(MARKERS)],
            )  # fmt: skip
        axes.set_title(dataset, fontsize=9.5, loc="left", parse_math=False)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
        tidy(axes)
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("confidence", fontsize=9)
    if len(labels) > 1:
        handles = {
            label: handle
            for axes in grid.flat
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend([handles[label] for label in labels], labels, loc="outside lower center",
                      ncols=4, fontsize=8.5, frameon=False)  # fmt: skip
    return png(figure)
