"""Figures of comparisons: all pairs of methods as a matrix, and how the scores of each are
spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from fomo_dagster.plots.figure import ON_DARK, ON_LIGHT, line_of, new_figure, tidy
from fomo_dagster.plots.scores import BAND

MOST_WRITTEN = 12  # methods up to which cells bear their numbers
DARK = 0.6  # of the largest difference, from which on a cell is dark


def pairs_figure(pairs: pl.DataFrame, names: Sequence[str]) -> Figure:
    """A matrix of methods: the mean difference of the row's less the column's over datasets, below
    it on how many the row's is higher and lower, and p.

    pairs: first, second, difference, wins, losses, p, of each two methods once.
    """
    differences = np.full((len(names), len(names)), np.nan)
    texts: dict[tuple[int, int], str] = {}
    for first, second, difference, wins, losses, p in pairs.select(
        "first", "second", "difference", "wins", "losses", "p"
    ).iter_rows():
        row, column = names.index(first), names.index(second)
        for place, sign, counts in (
            ((row, column), 1, (wins, losses)), ((column, row), -1, (losses, wins))
        ):  # fmt: skip
            differences[place] = sign * difference
            told = "p < 0.001" if p < 0.001 else f"p {p:.3f}"
            texts[place] = f"{sign * difference:+.2f}\n{counts[0]} : {counts[1]}\n{told}"
    most = max(float(np.nanmax(np.abs(differences))), 1e-9)
    side = 1.6 + 0.78 * min(len(names), MOST_WRITTEN)
    figure = new_figure(side + 1.6, side)
    axes = figure.subplots()
    edges = np.arange(len(names) + 1) - 0.5
    norm = TwoSlopeNorm(0, -most, most)
    mesh = axes.pcolormesh(edges, edges, differences, cmap="PuOr", norm=norm, edgecolors="white",
                           linewidth=0.6)  # fmt: skip
    places = range(len(names))
    axes.set_yticks(places, names, fontsize=8, parse_math=False)
    axes.set_xticks(places, names, fontsize=8, parse_math=False)
    axes.tick_params(axis="x", labelrotation=45, length=0)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.spines[:].set_visible(False)
    if len(names) <= MOST_WRITTEN:
        for (row, column), text in texts.items():
            is_dark = abs(differences[row, column]) > DARK * most
            axes.text(column, row, text, ha="center", va="center", fontsize=7,
                      color=ON_DARK if is_dark else ON_LIGHT)  # fmt: skip
    figure.colorbar(mesh, ax=axes, label="row less column (points)", fraction=0.05, pad=0.02)
    return figure


def profiles_figure(profiles: pl.DataFrame) -> Figure:
    """A line a method: the share of replicates and datasets that score above τ, with a band.

    profiles: method, above (τ in percent), share, low and high (from 0 to 1; null of one run).
    """
    figure = new_figure(6.5, 4)
    axes = figure.subplots()
    tidy(axes)
    for number, name in enumerate(profiles["method"].unique(maintain_order=True)):
        own, line = profiles.filter(method=name), line_of(number)
        axes.step(own["above"], own["share"], where="post", label=name, color=line.color,
                  linestyle=line.linestyle, linewidth=1.4)  # fmt: skip
        if own["low"].is_not_null().all():
            axes.fill_between(own["above"], own["low"], own["high"], step="post",
                              color=line.color, alpha=BAND, linewidth=0)  # fmt: skip
    axes.set(xlim=(0, 100), ylim=(0, 1.02))
    axes.set_xlabel("τ (score in %)", fontsize=10)
    axes.set_ylabel("share of runs and datasets above τ", fontsize=10)
    legend = figure.legend(loc="outside upper left", ncols=2, fontsize=8.5, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure
