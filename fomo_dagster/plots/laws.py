"""Points, the laws through them, and where a new point would be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fomo_dagster.plots.figure import COLOURS, MARKERS, drawn, new_figure, tidy
from fomo_dagster.statistics.answers import Floats

_EMPTY: tuple[float, ...] = ()


@dataclass(frozen=True)
class Curve:
    """A law over x (K,). low, high: of the interval, empty where there is none."""

    label: str
    x: Floats
    y: Floats
    low: Sequence[float] = _EMPTY
    high: Sequence[float] = _EMPTY
    dashed: bool = False


@dataclass(frozen=True)
class Series:
    """Points, those that laws were fitted to and those that were held out, with their curves."""

    label: str
    x: Floats
    y: Floats
    held_out_x: Sequence[float] | Floats = _EMPTY
    held_out_y: Sequence[float] | Floats = _EMPTY
    curves: Sequence[Curve] = field(default=())


def law_plot(series: Sequence[Series], x: str, y: str, suffix: str) -> bytes:
    """The series in a colour each, on logarithmic axes. suffix: as of `drawn`."""
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    tidy(axes)
    axes.set(xscale="log", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    for number, one in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        marker = MARKERS[number % len(MARKERS)]
        axes.plot(one.x, one.y, marker, color=colour, markersize=6, label=one.label)
        if len(one.held_out_x):
            axes.plot(
                one.held_out_x, one.held_out_y, marker, color=colour, markersize=7,
                fillstyle="none", label="held out",
            )  # fmt: skip
        for curve in one.curves:
            style = "--" if curve.dashed else "-"
            axes.plot(curve.x, curve.y, style, color=colour, linewidth=1.4, label=curve.label)
            if len(curve.low):
                axes.fill_between(
                    curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0,
                    label="95 % interval of a new point",
                )  # fmt: skip
    axes.set_xlabel(x, fontsize=10)
    axes.set_ylabel(y, fontsize=10)
    axes.legend(fontsize=9, frameon=False)
    return drawn(figure, suffix)
