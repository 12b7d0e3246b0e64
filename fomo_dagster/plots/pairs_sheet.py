"""What a contact sheet of near duplicates shows: pairs side by side."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
from PIL import Image

from fomo_dagster.data.near_duplicates import how_near
from fomo_dagster.plots.contact_sheet import Tile

MOST = 12  # pairs


def pair_tiles(
    pairs: pl.DataFrame, image_of: Callable[[str, str, str], Image.Image | None]
) -> list[Tile]:
    """Two tiles for each of up to `MOST` pairs (PAIRS, the ones to show first): what the stage
    brings, then the other one.

    Kinds take turns, and no other picture is shown twice: one that is near to hundreds, such as a
    blank page, would take all places. image_of: the image of a dataset's key in a split, None if it
    is not there; its pairs are left out.
    """
    pairs = pairs.unique(
        ["kind", "other_dataset", "other_split", "other_key"], keep="first", maintain_order=True
    )
    turns = pairs.with_columns(turn=pl.int_range(pl.len()).over("kind"))
    tiles: list[Tile] = []
    for row in turns.sort("turn", maintain_order=True).iter_rows(named=True):
        one = image_of(row["dataset"], row["key"], "train")
        other = image_of(row["other_dataset"], row["other_key"], row["other_split"])
        if one is not None and other is not None:
            # What cannot be seen elsewhere is first: the end of a long heading is cut.
            heading = f"{row['kind']}: {how_near(row)}, {row['other_dataset']}"
            tiles.append(Tile(one, row["dataset"], row["key"]))
            tiles.append(Tile(other, heading, row["other_key"]))
        if len(tiles) == 2 * MOST:
            break
    return tiles
