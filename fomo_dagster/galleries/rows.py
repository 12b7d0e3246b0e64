"""What a gallery has a row for: the images of a dataset, or its texts, in a fixed order."""

from __future__ import annotations

import hashlib
from typing import Literal

import polars as pl

from fomo_dagster.evaluation.prompts import PLACE
from fomo_dagster.store.digests import DIGEST_LENGTH

Of = Literal["images", "texts"]

COLUMNS: dict[str, pl.DataType] = {
    "split": pl.String(),
    "key": pl.String(),
    "concept": pl.String(),
    "digest": pl.String(),  # of what is embedded: the stored image, or the text
    "text": pl.String(),  # what is embedded; of an image its first caption, null without
}
"""The columns beside the embedding."""
PLACES = ("shard", "offset", "size")
"""Columns of an index by which an image is read; rows of images have them too."""


def rows_of(samples: pl.DataFrame, split: str, of: Of, prompt: str) -> pl.DataFrame:
    """The rows of a gallery, by split and key.

    samples: rows of an index. split: train, test or all. of: images, each of which has a row, or
    texts, each of which has one, that of the first image that it belongs to. prompt: the template
    of a text for images without captions.
    """
    if split != "all":
        samples = samples.filter(split=split)
    samples = samples.sort("split", "key")
    if of == "images":
        return samples.with_columns(text=pl.col("captions").list.first()).select(*COLUMNS, *PLACES)
    before, after = prompt.split(PLACE)
    of_concept = pl.concat_list(pl.concat_str(pl.lit(before), "concept", pl.lit(after)))
    captions = pl.col("captions")
    texts = pl.when(captions.list.len() > 0).then(captions).otherwise(of_concept)
    rows = (
        samples.select("split", "key", "concept", text=texts)
        .explode("text")
        .unique("text", keep="first", maintain_order=True)
    )
    digests = [_digest(text) for text in rows["text"]]
    return rows.with_columns(digest=pl.Series(digests, dtype=pl.String)).select(*COLUMNS)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]
