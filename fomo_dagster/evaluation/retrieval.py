"""Retrieval between images and captions: recall@1, 5 and 10, in both directions.

A caption belongs to an image, whatever their places in the table. Images are identified by their
digest, so an image that is stored under two keys is one image with the captions of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from fomo_dagster.errors import DataError
from fomo_dagster.evaluation.predictions import retrieved
from fomo_dagster.evaluation.ranking import Floats, Integers
from fomo_dagster.evaluation.ranking_both_ways import ranking_both_ways
from fomo_dagster.evaluation.results import (
    CONCEPT_METRICS,
    EvaluationResult,
    metrics_frame,
    percent,
)
from fomo_dagster.metrics import COUNTS_WITHIN, DatasetMetric, values_of

DEPTHS = (1, 5, 10)
MAIN_DEPTH = COUNTS_WITHIN["retrieval"]
_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class Retrieved:
    """The ranks of what was searched for, from 0. image_to_text: (N,), for each of N images the
    best rank of any of its captions; text_to_image: (M,), for each of M captions the rank of its
    image. captions: (N,), how many each image has."""

    image_to_text: Integers
    text_to_image: Integers
    captions: Integers

    def image_to_text_recall(self, depth: int) -> tuple[float, int]:
        return percent(self.image_to_text < depth), len(self.image_to_text)

    def text_to_image_recall(self, depth: int) -> tuple[float, int]:
        return percent(self.text_to_image < depth), len(self.text_to_image)

    def recall(self, depth: int) -> tuple[float, int]:
        images, there = self.image_to_text_recall(depth)
        texts, _ = self.text_to_image_recall(depth)
        return (images + texts) / 2, there

    def chance(self) -> tuple[float, int]:
        images, texts = len(self.captions), int(self.captions.sum())
        # That none of an image's captions is among the first ones drawn.
        drawn = np.arange(min(MAIN_DEPTH, texts))
        missed = np.prod(np.maximum(0, 1 - self.captions[:, None] / (texts - drawn)), axis=1)
        to_text = 1 - math.fsum(missed) / images
        to_image = min(MAIN_DEPTH, images) / images
        return 100 * (to_text + to_image) / 2, images


def _metric(
    name: str, description: str, recall: Callable[[Retrieved, int], tuple[float, int]], depth: int
) -> DatasetMetric[Retrieved]:
    return DatasetMetric(
        f"{name}@{depth}",
        description.format(depth),
        compute=lambda found: recall(found, depth),
        is_score=(name, depth) == ("recall", MAIN_DEPTH),
    )


_RECALLS = (
    (
        "image_to_text_recall",
        "share of images with at least one of their captions among the {} most similar",
        Retrieved.image_to_text_recall,
    ),
    (
        "text_to_image_recall",
        "share of captions whose image is among the {} most similar",
        Retrieved.text_to_image_recall,
    ),
    ("recall", "mean of the two recalls at {}", Retrieved.recall),
)
METRICS: tuple[DatasetMetric[Retrieved], ...] = (
    *(
        _metric(name, description, recall, depth)
        for name, description, recall in _RECALLS
        for depth in DEPTHS
    ),
    DatasetMetric("chance", f"the recall@{MAIN_DEPTH} of a random order", compute=Retrieved.chance),
)


def images_of(dataset: str, samples: pl.DataFrame) -> pl.DataFrame:
    """One row for each distinct image of `samples`, with all its captions, by key.

    Key, concept and place are those of the image's first key. Raises `DataError` if an image has no
    caption: it could neither find nor be found.
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
    the first image's captions first. The metrics are those of `METRICS`. A concept's `recall@5`
    queries with its own images and captions, against the whole dataset.
    """
    owners = np.repeat(np.arange(len(images)), images["captions"].list.len().to_numpy())  # (M,)
    to_texts, to_images = ranking_both_ways(image_features, caption_features, owners)
    found = Retrieved(to_texts.ranks, to_images.ranks, np.bincount(owners))
    concepts = images["concept"].to_numpy()
    rows = []
    for concept in sorted(set(concepts)):
        queries = concepts == concept, concepts[owners] == concept
        own_part = Retrieved(
            found.image_to_text[queries[0]], found.text_to_image[queries[1]],
            found.captions[queries[0]],
        )  # fmt: skip
        rows.append((dataset, concept, f"recall@{MAIN_DEPTH}", *own_part.recall(MAIN_DEPTH)))
    return EvaluationResult(
        metrics_frame(dataset, "retrieval", values_of(METRICS, found)),
        pl.DataFrame(rows, schema=CONCEPT_METRICS, orient="row"),
        retrieved(images, owners, to_texts, to_images),
    )
