"""Features of the samples of a manifest, whichever datasets they are of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import torch
from torch import Tensor

from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.graph.work.indexes import index_of

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext


def image_features_of(encoder: Encoder, manifest: pl.DataFrame, context: NodeContext) -> Tensor:
    """Of each sample of a MANIFEST, in its order, (N, D); empty of none. Images are not augmented;
    one that cannot be decoded is never drawn, and taken as a blank one."""
    places, blocks = [], []
    for (dataset,), part in manifest.with_row_index("place").group_by(
        "dataset", maintain_order=True
    ):
        index = index_of(str(dataset), context)
        part = part.select("place", "key").join(
            index.rows("train"), on="key", how="left", maintain_order="left"
        )
        blocks.append(encoder.images(str(dataset), part, index, blank_where_unreadable=True))
        places += part["place"].to_list()
    return torch.cat(blocks)[torch.tensor(places).argsort()] if blocks else torch.empty(0, 0)


def texts_of(manifest: pl.DataFrame) -> tuple[list[str], list[list[int]]]:
    """All different captions of a MANIFEST, and of each sample the rows of its own."""
    texts = manifest["captions"].explode().unique(maintain_order=True).to_list()
    row_of = {text: row for row, text in enumerate(texts)}
    return texts, [[row_of[text] for text in captions] for captions in manifest["captions"]]
