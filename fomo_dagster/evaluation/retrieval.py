"""Retrieval between images and captions: recall@1, 5 and 10, both ways.

A caption belongs to an image, whatever their places in the table: images are told apart by their
digest, so one that is stored under two keys is one image with the captions of both.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from fomo_dagster.errors import DataError
from fomo_dagster.evaluation.ranking import Floats, first_relevant_ranks
from fomo_dagster.evaluation.results import (
    CONCEPT_METRICS,
    SCORE,
    EvaluationResult,
    metrics_frame,
    percent,
)

DEPTHS = (1, 5, 10)
MAIN_DEPTH = 5
_NAMED_AT_MOST = 5


def images_of(dataset: str, samples: pl.DataFrame) -> pl.DataFrame:
    """One row for each distinct image of `samples`, with all its captions, by key.

    Key, concept and place are those of the image's first key. Raises `DataError` where an image has
    no caption: nothing could ever find it, nor it anything.
    """
    images = (
        samples.sort("key")
        .group_by("digest", maintain_order=True)
        .agg(
            pl.exclude("digest", "captions").first(),
            pl.col("captions").explode(empty_as_null=False),
        )
        .select(samples.columns)
    )
    bare = images.filter(pl.col("captions").list.len() == 0)["key"]
    if len(bare):
        named = ", ".join(repr(key) for key in bare[:_NAMED_AT_MOST])
        raise DataError(
            f"{len(bare)} test images of the retrieval dataset {dataset!r} have no caption "
            f"({named}{', …' if len(bare) > _NAMED_AT_MOST else ''}): give each at least one, or "
            "declare the dataset's task as classification"
        )
    return images


def retrieval_result(
    dataset: str, images: pl.DataFrame, image_features: Floats, caption_features: Floats
) -> EvaluationResult:
    """Recalls in percent of N images with M captions together.

    images: rows of `images_of`; image_features: (N, D) in their order; caption_features: (M, D),
    the first image's captions first. `image_to_text_recall@k` is the share of images with any of
    their captions among the k most similar ones; `text_to_image_recall@k` the share of captions
    whose image is among the k most similar ones; `recall@k` the mean of the two. A concept's
    `recall@5` takes its own images and their captions as queries, against all of the dataset.
    """
    owners = np.repeat(np.arange(len(images)), images["captions"].list.len().to_numpy())  # (M,)
    own = np.arange(len(images))
    ranks = {
        "image_to_text": first_relevant_ranks(image_features, caption_features, own, owners),
        "text_to_image": first_relevant_ranks(caption_features, image_features, owners, own),
    }
    values = {
        f"{way}_recall@{depth}": (percent(ranks[way] < depth), len(ranks[way]))
        for way in ranks
        for depth in DEPTHS
    }
    for depth in DEPTHS:
        both = sum(values[f"{way}_recall@{depth}"][0] for way in ranks) / 2
        values[f"recall@{depth}"] = (both, len(images))
    values = {SCORE: values[f"recall@{MAIN_DEPTH}"], **values}
    concepts = images["concept"].to_numpy()
    rows = []
    for concept in sorted(set(concepts)):
        found = ranks["image_to_text"][concepts == concept] < MAIN_DEPTH
        placed = ranks["text_to_image"][concepts[owners] == concept] < MAIN_DEPTH
        value = (percent(found) + percent(placed)) / 2
        rows.append((dataset, concept, f"recall@{MAIN_DEPTH}", value, len(found)))
    return EvaluationResult(
        metrics_frame(dataset, "retrieval", values),
        pl.DataFrame(rows, schema=CONCEPT_METRICS, orient="row"),
    )
