"""A contact sheet: images of a dataset in a grid, each with its concept and caption."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fomo_dagster.errors import InputError
from fomo_dagster.plots.figure import new_figure, png

COLUMNS = 6
CELL = 1.75  # inches
PIXELS = 256  # a thumbnail's longer side at most
LINE = 0.135  # inches that a line of text takes
HEADING_WIDTH, TEXT_WIDTH = 22, 27  # characters that fit on a line
HEADING_LINES, TEXT_LINES = 2, 3


@dataclass(frozen=True)
class Tile:
    """An image in any mode of Pillow's, what stands above it and what stands below."""

    image: Image.Image
    heading: str
    text: str = ""


def contact_sheet(tiles: Sequence[Tile], title: str = "") -> bytes:
    """The tiles in rows of `COLUMNS`, as PNG; long texts are cut with an ellipsis.

    Raises `InputError` where there is no tile.
    """
    if not tiles:
        raise InputError(f"the contact sheet {title!r} has no image to show")
    headings = [_lines(tile.heading, HEADING_WIDTH, HEADING_LINES) for tile in tiles]
    texts = [_lines(tile.text, TEXT_WIDTH, TEXT_LINES) for tile in tiles]
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    lines = max(map(len, headings)) + max(map(len, texts))
    figure = new_figure(
        max(columns, 2) * CELL, rows * (CELL + lines * LINE + 0.1) + (0.4 if title else 0)
    )
    if title:
        figure.suptitle(title, fontsize=12, parse_math=False)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
        axes.set_anchor("N")
    # Captions are text, never formulas: a dollar sign is a dollar sign.
    for axes, tile, heading, text in zip(grid.flat, tiles, headings, texts, strict=False):
        axes.imshow(_thumbnail(tile.image))
        axes.set_title("\n".join(heading), fontsize=8, weight="bold", pad=3, parse_math=False)
        axes.text(
            0.5,
            -0.03,
            "\n".join(text),
            transform=axes.transAxes,
            ha="center",
            va="top",
            fontsize=7.5,
            parse_math=False,
        )
    return png(figure)


def _lines(text: str, width: int, most: int) -> list[str]:
    if any(unicodedata.east_asian_width(character) in "WF" for character in text):
        width //= 2
    return textwrap.wrap(text, width, max_lines=most, placeholder=" …")


def _thumbnail(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow alone would clip these at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    small = image.convert("RGBA") if image.mode == "P" else image.copy()
    small.thumbnail((PIXELS, PIXELS))
    return small.convert("RGB")
