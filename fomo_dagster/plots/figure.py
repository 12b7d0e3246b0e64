"""What all pictures share: a figure without global state, colours, and its bytes.

Pictures are drawn through matplotlib's object API. pyplot keeps figures alive and picks a window
system, which a long-running service must not do.
"""

from __future__ import annotations

import io
import warnings
from threading import Lock
from typing import Literal, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fomo_dagster.errors import InputError

# Okabe and Ito, "Color Universal Design" (2008): told apart with any colour vision. Their yellow is
# left out, since it is too pale for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# As good as black and white, where they are not the page's own ink and paper.
ON_LIGHT, ON_DARK = "#010101", "#fefefe"
MUTED = "#767676"  # for what stands behind the data; still legible as text on white


class Line(NamedTuple):
    """How a line is drawn, by the names that `Axes.plot` has."""

    color: str
    marker: str
    linestyle: str


def line_of(number: int) -> Line:
    """The line of the number-th of several: the second round of colours has dashes, and other
    markers than the first."""
    turn = number // len(COLOURS)
    return Line(
        COLOURS[number % len(COLOURS)], MARKERS[(number + turn) % len(MARKERS)],
        "--" if turn else "-",
    )  # fmt: skip


def new_figure(
    width: float, height: float, *, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """An empty white figure of that size in inches; layout None: the caller sets the margins."""
    figure = Figure(figsize=(width, height), dpi=110, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as PNG: the same bytes for the same input with the same matplotlib."""
    return _written(figure, "png", {"Software": None})


def svg(figure: Figure) -> bytes:
    """The figure as SVG, with texts as texts; the same bytes for the same input."""
    # Of a font that is there: others than the one that was measured are narrower than this one.
    return _written(figure, "svg", {"Date": None, "Creator": None})


def pdf(figure: Figure) -> bytes:
    """The figure as PDF; the same bytes for the same input."""
    return _written(figure, "pdf", {"CreationDate": None, "Creator": None, "Producer": None})


def drawn(figure: Figure, suffix: str) -> bytes:
    """The figure by the suffix of its file, in letters of any size; raises `InputError` for another
    than these."""
    ways = {".png": png, ".svg": svg, ".pdf": pdf}
    if suffix.lower() not in ways:
        raise InputError(f"pictures are {', '.join(ways)} files, not {suffix or 'others'}")
    return ways[suffix.lower()](figure)


_ONE_AT_A_TIME = Lock()  # all threads see what `rc_context` sets, and what it puts back


def _written(figure: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    buffer = io.BytesIO()
    as_texts = rc_context({"svg.hashsalt": "fomo", "svg.fonttype": "none", "pdf.fonttype": 42})
    with _ONE_AT_A_TIME, as_texts, warnings.catch_warnings():
        # A character that the font lacks is drawn as a box; captions come in every script.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def tidy(axes: Axes) -> None:
    """A light grid, and no frame above and to the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
