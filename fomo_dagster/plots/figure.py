"""What all pictures share: a figure without global state, colours, and the bytes of a file.

Pictures are drawn through matplotlib's object API. pyplot keeps figures alive and picks a window
system, which a long-running service must not do.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fomo_dagster.errors import InputError

# Okabe and Ito, "Color Universal Design" (2008): told apart with any colour vision. Their yellow is
# left out, since it is too pale for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_METADATA: Mapping[str, dict[str, None]] = {".png": {"Software": None}, ".svg": {"Date": None}}
MUTED = "#767676"  # for what stands behind the data; still legible as text on white


def new_figure(
    width: float, height: float, *, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """An empty white figure of that size in inches; layout None: the caller sets the margins."""
    figure = Figure(figsize=(width, height), dpi=110, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as PNG: the same bytes for the same input with the same matplotlib."""
    return drawn(figure, ".png")


def drawn(figure: Figure, suffix: str) -> bytes:
    """The figure as PNG or SVG, by the suffix of its file; raises `InputError` for another."""
    if suffix not in _METADATA:
        raise InputError(f"pictures are {' or '.join(_METADATA)} files, not {suffix or 'others'}")
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A character that the font lacks is drawn as a box; captions come in every script.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format=suffix[1:], metadata=_METADATA[suffix])
    return buffer.getvalue()


def tidy(axes: Axes) -> None:
    """A light grid, and no frame above and to the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
