"""Zero-shot classification: accuracy of a dataset and of each of its concepts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from fomo_dagster.errors import DataError, nearest
from fomo_dagster.evaluation.ranking import Floats, first_relevant_ranks
from fomo_dagster.evaluation.results import (
    CONCEPT_METRICS,
    SCORE,
    EvaluationResult,
    metrics_frame,
    percent,
)

TOP = 5


def classification_result(
    dataset: str,
    concepts: Sequence[str],
    class_names: Sequence[str],
    image_features: Floats,
    embeddings: Floats,
) -> EvaluationResult:
    """Accuracy in percent over all classes, never only those that were seen.

    concepts: the true class of each of N images; image_features: (N, D); embeddings: (C, D), in the
    order of `class_names`. The class with the greatest inner product is predicted, the first listed
    of equals. `accuracy` is the share of images, `mean_per_class_accuracy` the mean over the
    classes that have any; `top_5_accuracy` is there where C > 5.

    Raises `DataError` for a concept that is no class.
    """
    positions = {name: position for position, name in enumerate(class_names)}
    for concept in concepts:
        if concept not in positions:
            raise DataError(
                f"dataset {dataset!r} has test samples of {concept!r}, which is none of its "
                f"{len(positions)} classes: {nearest(concept, positions)}"
            )
    targets = np.array([positions[concept] for concept in concepts])  # (N,)
    ranks = first_relevant_ranks(image_features, embeddings, targets, np.arange(len(class_names)))
    hits = np.bincount(targets[ranks == 0], minlength=len(class_names))  # (C,)
    totals = np.bincount(targets, minlength=len(class_names))  # (C,)
    rows = sorted(
        (dataset, name, "accuracy", 100 * hit / total, total)
        for name, hit, total in zip(class_names, hits.tolist(), totals.tolist(), strict=True)
        if total
    )
    accuracy = (percent(ranks == 0), len(ranks))
    per_class = math.fsum(value for *_, value, _ in rows) / len(rows)
    values = {
        SCORE: accuracy,
        "accuracy": accuracy,
        "mean_per_class_accuracy": (per_class, len(ranks)),
    }
    if len(class_names) > TOP:
        values[f"top_{TOP}_accuracy"] = (percent(ranks < TOP), len(ranks))
    return EvaluationResult(
        metrics_frame(dataset, "classification", values),
        pl.DataFrame(rows, schema=CONCEPT_METRICS, orient="row"),
    )
