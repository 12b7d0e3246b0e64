"""Zero-shot classification: accuracy of a dataset and of each of its concepts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from fomo_dagster.errors import DataError, nearest
from fomo_dagster.evaluation.calibration import (
    BINS,
    adaptive_calibration_error,
    expected_calibration_error,
)
from fomo_dagster.evaluation.predictions import classified
from fomo_dagster.evaluation.ranking import Floats, Integers, Ranking, ranking
from fomo_dagster.evaluation.results import (
    CONCEPT_METRICS,
    EvaluationResult,
    metrics_frame,
    percent,
)
from fomo_dagster.metrics import DatasetMetric, values_of

TOP = 5


@dataclass(frozen=True)
class Classified:
    """The result of classifying N images. ranking: of the images among all classes; targets: (N,),
    the true class; classes: the number of classes; scale: the factor of similarities in the
    softmax, the same for all images or (N,)."""

    ranking: Ranking
    targets: Integers
    classes: int
    scale: float | npt.NDArray[np.float64]

    @property
    def ranks(self) -> Integers:
        """(N,), the place of each image's true class among all classes, from 0."""
        return self.ranking.ranks

    @cached_property
    def log_probabilities(self) -> npt.NDArray[np.float64]:
        """(N,), of the true classes."""
        return self.scale * self.ranking.right.astype(np.float64) - self.ranking.log_total

    @cached_property
    def confidences(self) -> npt.NDArray[np.float64]:
        """(N,), the probabilities of the predicted classes."""
        best = self.scale * self.ranking.best.astype(np.float64)
        return np.exp(best - self.ranking.log_total)

    @cached_property
    def hits(self) -> Integers:
        """(C,), the images of each class that are predicted right."""
        return np.bincount(self.targets[self.ranks == 0], minlength=self.classes)

    @cached_property
    def totals(self) -> Integers:
        """(C,), the images of each class."""
        return np.bincount(self.targets, minlength=self.classes)

    def accuracy(self) -> tuple[float, int]:
        return percent(self.ranks == 0), len(self.ranks)

    def mean_per_class_accuracy(self) -> tuple[float, int]:
        there = self.totals > 0
        shares = (100 * self.hits[there] / self.totals[there]).tolist()
        return math.fsum(shares) / len(shares), len(self.ranks)

    def top_accuracy(self) -> tuple[float, int] | None:
        if self.classes <= TOP:
            return None
        return percent(self.ranks < TOP), len(self.ranks)

    def chance(self) -> tuple[float, int]:
        return 100 / self.classes, len(self.ranks)

    def expected_calibration_error(self) -> tuple[float, int] | None:
        return self._of_probabilities(
            100 * expected_calibration_error(self.confidences, self.ranks == 0)
        )

    def adaptive_calibration_error(self) -> tuple[float, int] | None:
        return self._of_probabilities(
            100 * adaptive_calibration_error(self.confidences, self.ranks == 0)
        )

    def brier_score(self) -> tuple[float, int] | None:
        probabilities = np.exp(self.log_probabilities)
        squares = self.ranking.concentration - 2 * probabilities + 1  # Σ (p - y)²
        return self._of_probabilities(100 * math.fsum(squares) / len(squares))

    def negative_log_likelihood(self) -> tuple[float, int] | None:
        total = -math.fsum(self.log_probabilities)
        return self._of_probabilities(total / len(self.ranks))

    def _of_probabilities(self, value: float) -> tuple[float, int] | None:
        """None where the model's temperature leaves no probabilities."""
        return (value, len(self.ranks)) if math.isfinite(value) else None


METRICS: tuple[DatasetMetric[Classified], ...] = (
    DatasetMetric(
        "accuracy",
        "share of images whose class is predicted correctly",
        compute=Classified.accuracy,
        is_score=True,
    ),
    DatasetMetric(
        "mean_per_class_accuracy",
        "mean of the accuracies of the classes that have test images",
        compute=Classified.mean_per_class_accuracy,
    ),
    DatasetMetric(
        f"top_{TOP}_accuracy",
        f"share of images whose class is among the {TOP} most probable, if there are more classes",
        compute=Classified.top_accuracy,
    ),
    DatasetMetric(
        "chance",
        "the accuracy of guessing: 100 divided by the number of classes",
        compute=Classified.chance,
    ),
    DatasetMetric(
        "expected_calibration_error",
        f"mean distance of confidence and accuracy over {BINS} bins of equal width",
        best="low",
        compute=Classified.expected_calibration_error,
    ),
    DatasetMetric(
        "adaptive_calibration_error",
        f"mean distance of confidence and accuracy over {BINS} bins of equal numbers of images",
        best="low",
        compute=Classified.adaptive_calibration_error,
    ),
    DatasetMetric(
        "brier_score",
        "100 times the mean squared distance of the probabilities from 1 for the true class and 0 "
        "for the others (from 0 to 200)",
        best="low",
        most=200.0,
        compute=Classified.brier_score,
    ),
    DatasetMetric(
        "negative_log_likelihood",
        "mean negative logarithm of the true class's probability",
        unit="nats",
        best="low",
        compute=Classified.negative_log_likelihood,
    ),
)


def classification_result(
    dataset: str,
    images: pl.DataFrame,
    class_names: Sequence[str],
    image_features: Floats,
    embeddings: Floats,
    scale: float,
) -> EvaluationResult:
    """Accuracy in percent, over all classes and not only those seen so far.

    images: `key` and `concept`, the true class, of each of N images; image_features: (N, D);
    embeddings: (C, D), in the order of `class_names`. The class with the greatest inner product is
    predicted; of equal ones, the first listed. scale: the factor of these products in the softmax
    that gives probabilities. The metrics are those of `METRICS`.

    Raises `DataError` for a concept that is not a class.
    """
    concepts = images["concept"].to_list()
    positions = {name: position for position, name in enumerate(class_names)}
    for concept in concepts:
        if concept not in positions:
            raise DataError(
                f"dataset {dataset!r} has test samples of {concept!r}, which is none of its "
                f"{len(positions)} classes: {nearest(concept, positions)}"
            )
    targets = np.array([positions[concept] for concept in concepts])  # (N,)
    classes = np.arange(len(class_names))
    ranked = ranking(image_features, embeddings, targets, classes, scale)
    found = Classified(ranked, targets, len(class_names), scale)
    rows = sorted(
        (dataset, name, "accuracy", 100 * hit / total, total)
        for name, hit, total in zip(
            class_names, found.hits.tolist(), found.totals.tolist(), strict=True
        )
        if total
    )
    return EvaluationResult(
        metrics_frame(dataset, "classification", values_of(METRICS, found)),
        pl.DataFrame(rows, schema=CONCEPT_METRICS, orient="row"),
        classified(images["key"].to_list(), targets, class_names, ranked, scale),
    )
