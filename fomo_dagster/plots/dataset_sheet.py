"""The contact sheet of a dataset: some of its samples, spread over its concepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from fomo_dagster.data.decoding import DEFAULT, Decoding
from fomo_dagster.data.images import UnreadableImageError, decoded
from fomo_dagster.errors import DataError
from fomo_dagster.plots.contact_sheet import Tile, contact_sheet

TILES = 24


def dataset_sheet(
    samples: pl.DataFrame,
    read: Callable[[Mapping[str, Any]], bytes],
    title: str,
    decoding: Decoding = DEFAULT,
) -> bytes:
    """PNG of up to `TILES` of `samples` (columns of SAMPLES, and what `read` needs).

    read: gives the encoded image of a row. Images that cannot be decoded are left out; raises
    `DataError` where none can.
    """
    turns = samples.with_columns(turn=pl.int_range(pl.len()).over("concept"))
    first = turns.sort("turn", "concept").head(max(TILES, turns["concept"].n_unique()))
    shown = first.gather_every(max(1, first.height // TILES)).head(TILES).sort("concept")
    tiles = []
    for row in shown.iter_rows(named=True):
        try:
            image = decoded(read(row), decoding)
        except UnreadableImageError:
            continue
        tiles.append(Tile(image, row["concept"], " / ".join(row["captions"])))
    if not tiles:
        raise DataError(f"none of {shown.height} images of {title} that were tried can be decoded")
    return contact_sheet(tiles, title)
