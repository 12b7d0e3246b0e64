"""What a contact sheet of inspected samples shows: the most conspicuous first."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
from PIL import Image

from fomo_dagster.plots.contact_sheet import Tile

MOST = 12


def most_conspicuous(samples: pl.DataFrame, by: str) -> pl.DataFrame:
    """The samples that a question is about, the most conspicuous first.

    by: `novelty`, the highest first; `similarity`, the lowest; `label_quality`, the lowest of
    those whose label is doubtful.
    """
    if by == "label_quality":
        samples = samples.filter(pl.col("doubtful").fill_null(value=False))
    known = samples.drop_nulls(by)
    return known.sort(by, "dataset", "key", descending=[by == "novelty", False, False])


def inspection_tiles(
    samples: pl.DataFrame, by: str, image_of: Callable[[str, str, str], Image.Image | None]
) -> list[Tile]:
    """Up to `MOST` tiles. image_of: the image of a dataset's key in a split, None if it is not
    there."""
    tiles: list[Tile] = []
    for row in most_conspicuous(samples, by).head(4 * MOST).iter_rows(named=True):
        image = image_of(row["dataset"], row["key"], "train")
        if image is not None:
            tiles.append(Tile(image, f"{row['dataset']} ({row[by]:.2f})", _said(row, by)))
        if len(tiles) == MOST:
            break
    return tiles


def _said(row: dict[str, object], by: str) -> str:
    if by == "similarity" and row.get("captions"):
        return str(row["captions"][0])  # type: ignore[index]
    if by == "label_quality":
        return f"{row['concept']}, or {row['suggested']}?"
    return str(row["concept"])
