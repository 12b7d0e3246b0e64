"""The contact sheet of what a checkpoint gets wrong."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
from PIL import Image

from fomo_dagster.plots.contact_sheet import Tile, contact_sheet

TILES = 24


def errors_sheet(
    wrong: pl.DataFrame, image_of: Callable[[str, str], Image.Image | None], title: str
) -> bytes:
    """PNG of up to `TILES` images, each below its concept and above what it is taken for.

    wrong: rows of predictions, the ones to show first; image_of: the image of a dataset's key, None
    if it is no longer there. Raises `InputError` if no image can be shown.
    """
    tiles: list[Tile] = []
    for row in wrong.filter(query="image").iter_rows(named=True):
        image = image_of(row["dataset"], row["key"])
        if image is not None:
            sure = row["probability_of_predicted"]
            share = "" if sure is None else f" ({sure:.0%})"
            text = f"{row['predicted']}{share}, {row['dataset']}"
            tiles.append(Tile(image, row["concept"], text))
        if len(tiles) == TILES:
            break
    return contact_sheet(tiles, title)
