"""The picture of a stream: which dataset is where in the order, and the key figure along it."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from fomo_dagster.plots.figure import COLOURS, MUTED, new_figure, png, tidy

MOST_COLUMNS = 1200  # of the bands; beyond, several positions share one
MOST_POINTS = 300  # up to which every concept's figure is a marker of its own
NAMES_OF_BANDS = 60  # datasets up to which each band bears its name


def stream_plot(order: pl.DataFrame, figure_name: str | None, title: str = "") -> bytes:
    """The key figure over positions, and a band for each dataset, as PNG.

    order: position, dataset, concept, figure (see `streams` in the tables). A band is dark where
    all concepts of that stretch are the dataset's, and paler the fewer are; bands stand in the
    order in which the datasets first come. figure_name: what the figure is; None: there is none.
    """
    names = order["dataset"].unique(maintain_order=True).to_list()
    bands_height = max(0.9, min(len(names), NAMES_OF_BANDS) * 0.2)
    with_figure = figure_name is not None and order["figure"].null_count() < order.height
    heights = ([2.4] if with_figure else []) + [bands_height]
    picture = new_figure(10, sum(heights) + 0.9)
    panels = picture.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    picture.suptitle(
        title or f"{order.height:,} concepts of {len(names):,} datasets",
        fontsize=11, parse_math=False,
    )  # fmt: skip
    if with_figure:
        _figures(panels[0, 0], order, figure_name or "")
    _bands(panels[-1, 0], order, names)
    return png(picture)


def _figures(axes: Axes, order: pl.DataFrame, name: str) -> None:
    """Each concept's figure; for many concepts points, and the running median as a line."""
    known = order.filter(pl.col("figure").is_not_null())
    x, y = known["position"].to_numpy(), known["figure"].to_numpy()
    if known.height <= MOST_POINTS:
        axes.plot(x, y, "-o", color=COLOURS[0], markersize=3, linewidth=0.8)
    else:
        axes.plot(x, y, ",", color=MUTED, alpha=0.6, rasterized=True)
        window = known.height // 60
        median = known["figure"].rolling_median(window, min_samples=1, center=True)
        axes.plot(x, median.to_numpy(), color=COLOURS[0], linewidth=1.4, label="running median")
        axes.legend(fontsize=8, frameon=False)
    if known.height and y.min() >= 0 and y.max() > 1000:  # counts span magnitudes
        axes.set_yscale("symlog", linthresh=1)
    axes.set_ylabel(name, fontsize=10)
    tidy(axes)


def _bands(axes: Axes, order: pl.DataFrame, names: list[str]) -> None:
    """One row a dataset, from white to its colour by its share of the concepts of a column."""
    columns = min(order.height, MOST_COLUMNS)
    rows = {name: row for row, name in enumerate(names)}
    at_row = np.array([rows[name] for name in order["dataset"]], dtype=np.int64)
    at_column = np.arange(order.height) * columns // max(order.height, 1)
    shares = np.zeros((len(names), columns))
    np.add.at(shares, (at_row, at_column), 1)
    shares /= np.maximum(shares.sum(axis=0, keepdims=True), 1)
    # Few concepts among many are still seen: from a quarter of the colour on.
    strength = np.where(shares > 0, 0.25 + 0.75 * shares, 0)[..., None]  # (datasets, columns, 1)
    colours = np.array([to_rgb(COLOURS[row % len(COLOURS)]) for row in range(len(names))])
    image = 1 - strength * (1 - colours[:, None, :])
    axes.imshow(
        image, aspect="auto", interpolation="nearest",
        extent=(0.5, order.height + 0.5, len(names) - 0.5, -0.5),
    )  # fmt: skip
    if len(names) <= NAMES_OF_BANDS:
        axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    else:
        axes.set_ylabel(f"{len(names):,} datasets", fontsize=10)
        axes.set_yticks([])
    axes.set_xlabel("position in the stream", fontsize=10)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
