"""A contact sheet: images of a dataset in a grid, each with its concept and caption."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from fomo_dagster.data.images import to_rgb
from fomo_dagster.errors import InputError
from fomo_dagster.plots.figure import new_figure, png

COLUMNS = 6
CELL = 1.75  # inches
GAP = 0.1  # inches between rows, and between images
TITLE = 0.4  # inches
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

    Raises `InputError` if there is no tile.
    """
    if not tiles:
        raise InputError(f"the contact sheet {title!r} has no image to show")
    headings = [_lines(tile.heading, HEADING_WIDTH, HEADING_LINES) for tile in tiles]
    texts = [_lines(tile.text, TEXT_WIDTH, TEXT_LINES) for tile in tiles]
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    above, below = (max(map(len, lines)) * LINE for lines in (headings, texts))
    row_height = above + CELL + below + GAP
    top = TITLE if title else GAP
    width, height = max(columns, 2) * CELL, top + rows * row_height
    figure = new_figure(width, height, layout=None)
    # One axes in inches from the upper left corner: one for each tile takes ten times as long.
    axes = figure.add_axes((0, 0, 1, 1))
    if title:
        figure.text(0.5, 1 - TITLE / 2 / height, title, fontsize=12, ha="center", va="center",
                    parse_math=False)  # fmt: skip
    margin = (width - columns * CELL) / 2
    for number, (tile, heading, text) in enumerate(zip(tiles, headings, texts, strict=True)):
        row, column = divmod(number, columns)
        middle, upper = margin + (column + 0.5) * CELL, top + row * row_height + above
        image = _thumbnail(tile.image)
        scale = (CELL - GAP) / max(image.size)
        across, down = image.width * scale, image.height * scale
        axes.imshow(image, extent=(middle - across / 2, middle + across / 2, upper + down, upper))
        # Captions are text, never formulas: a dollar sign is a dollar sign.
        axes.text(middle, upper - 0.03, "\n".join(heading), fontsize=8, weight="bold", ha="center",
                  va="bottom", parse_math=False)  # fmt: skip
        axes.text(middle, upper + down + 0.04, "\n".join(text), fontsize=7.5, ha="center",
                  va="top", parse_math=False)  # fmt: skip
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return png(figure)


def _lines(text: str, width: int, most: int) -> list[str]:
    if any(unicodedata.east_asian_width(character) in "WF" for character in text):
        width //= 2
    return textwrap.wrap(text, width, max_lines=most, placeholder=" …")


def _thumbnail(image: Image.Image) -> Image.Image:
    small = to_rgb(image).copy()
    small.thumbnail((PIXELS, PIXELS))
    return small
