"""What a model thinks of samples: how well captions fit, and what it would call them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from torch import Tensor

ZERO_SHOT: dict[str, pl.DataType] = {"confidence": pl.Float64(), "predicted": pl.String()}


def fit_of_captions(
    captions: pl.Series, features: Tensor, texts: Callable[[Sequence[str]], Tensor]
) -> list[float]:
    """The cosine of each of N images and the one of its captions that fits least: N numbers.

    captions: N lists of one text at least; features: (N, D), L2-normalised; texts: `Encoder.texts`.
    """
    lengths = captions.list.len().to_list()
    rows = np.repeat(np.arange(len(lengths)), lengths)
    of_texts = texts(captions.explode().to_list())  # (sum of lengths, D)
    cosines = pl.Series((features[rows] * of_texts).sum(dim=1).double().numpy())
    return (
        pl.DataFrame({"row": rows, "cosine": cosines})
        .group_by("row", maintain_order=True)
        .agg(pl.col("cosine").min())["cosine"]
        .to_list()
    )


def zero_shot_of(
    samples: pl.DataFrame, features: Tensor, classes: Sequence[str], embeddings: Tensor,
    scale: float,
) -> pl.DataFrame:  # fmt: skip
    """row, and ZERO_SHOT: the probability of each sample's own class among all classes, and the
    most probable one.

    samples: row, and concept, one of `classes`; features: (N, D), of which `row` takes one;
    embeddings: (C, D) of the classes; scale: the factor of cosines in the softmax.
    """
    places = {name: place for place, name in enumerate(classes)}
    targets = samples["concept"].replace_strict(places, return_dtype=pl.Int64).to_numpy()
    own = features[samples["row"].to_list()]
    probabilities = (scale * own @ embeddings.T).softmax(dim=1).numpy()  # (N, C)
    return samples.select("row").with_columns(
        confidence=pl.Series(probabilities[np.arange(len(targets)), targets], dtype=pl.Float64),
        predicted=pl.Series([classes[place] for place in probabilities.argmax(axis=1)]),
    )


def drawn(samples: pl.DataFrame, most: int) -> pl.DataFrame:
    """Up to `most` rows, those with the lowest hash of dataset and key, in this order: the same
    ones whatever else is there, as far as there is room."""
    names = samples.select(pl.format("{}/{}", "dataset", "key")).to_series()
    hashes = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    return samples.with_columns(pl.Series("_hash", hashes)).sort("_hash").drop("_hash").head(most)
