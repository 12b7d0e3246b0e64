"""A few small images in a row or two, each above two lines of text: for where many are drawn.

It takes milliseconds, where a contact sheet takes a second, and its JPEG some ten kilobytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from fomo_dagster.data.images import to_rgb
from fomo_dagster.plots.contact_sheet import Tile

COLUMNS = 6
SIZE, GAP = 112, 8  # pixels: of an image's longer side, and around it
LINE = 15  # pixels that a line of text takes
QUALITY = 85


def thumbnails(tiles: Sequence[Tile]) -> bytes:
    """JPEG of one tile or more, in rows of `COLUMNS`, each above its heading and its text, which
    are cut to a line each; the same bytes for the same tiles with the same Pillow."""
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    width, height = SIZE + 2 * GAP, SIZE + 2 * LINE + 2 * GAP
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        left, upper = column * width + GAP, row * height + GAP
        image = _fitted(tile.image)
        sheet.paste(image, (left + (SIZE - image.width) // 2, upper + (SIZE - image.height) // 2))
        for line, (text, weight) in enumerate(((tile.heading, "-Bold"), (tile.text, ""))):
            font = _font(weight)
            draw.text((left, upper + SIZE + 2 + line * LINE), _cut(text, font), "black", font)
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _fitted(image: Image.Image) -> Image.Image:
    scale = SIZE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
    return to_rgb(image).resize(size, how, reducing_gap=None if scale > 1 else 2.0)


@cache
def _font(weight: str) -> ImageFont.FreeTypeFont:
    """Matplotlib's own, which has more letters than Pillow's."""
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", f"DejaVuSans{weight}.ttf")
    return ImageFont.truetype(file, 11)


def _cut(text: str, font: ImageFont.FreeTypeFont) -> str:
    """What fits on a line."""
    text = " ".join(text.split())
    if font.getlength(text) <= SIZE:
        return text
    while text and font.getlength(f"{text}…") > SIZE:
        text = text[:-1]
    return f"{text.rstrip()}…"
