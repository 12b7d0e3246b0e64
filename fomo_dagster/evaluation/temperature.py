"""Temperature scaling: probabilities softmax(s/T), with the T of least negative log likelihood.

Guo et al. 2017, arXiv 1706.04599. T is a factor of the model's own temperature; it changes no
prediction. No image is scaled by a T that it was fitted on: each dataset's images are divided into
folds, and those of a fold are scaled by what all other folds give. So the metrics are of the same
images as those of the evaluation, and need no images besides.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fomo_dagster.evaluation.classification import METRICS as CLASSIFICATION_METRICS
from fomo_dagster.evaluation.classification import Classified
from fomo_dagster.evaluation.ranking import Floats, Integers, joined, ranking
from fomo_dagster.metrics import DatasetMetric, Metric

FARTHEST = math.log(100)  # of log T from 0, where T is looked for
BLOCK_ELEMENTS = 2**21

OF_PROBABILITIES: tuple[DatasetMetric[Classified], ...] = tuple(
    metric
    for metric in CLASSIFICATION_METRICS
    if metric.name
    in (
        "expected_calibration_error", "adaptive_calibration_error", "brier_score",
        "negative_log_likelihood",
    )
)  # fmt: skip
"""The metrics that a temperature changes."""
TEMPERATURE = Metric(
    "temperature",
    "the fitted factor of the model's own temperature, above 1 if it is too sure (the geometric "
    "mean over folds)",
    unit="factor",
    best="neither",
)
METRICS: tuple[Metric, ...] = (
    TEMPERATURE,
    *(metric.variant("scaled", "with the fitted temperature") for metric in OF_PROBABILITIES),
)


@dataclass(frozen=True)
class Encoded:
    """The images of a dataset and its classes, encoded.

    images: (N, D); classes: (C, D); targets: (N,), the place of each image's class; folds: (N,);
    scale: the model's own factor of similarities.
    """

    images: Floats
    classes: Floats
    targets: Integers
    folds: Integers
    scale: float

    @cached_property
    def similarities(self) -> Floats:
        """(N, C), as `ranking` rounds them."""
        products = self.images.astype(np.float64) @ self.classes.astype(np.float64).T
        return products.astype(np.float32)

    def classified(self, temperatures: Sequence[float] = (1.0,)) -> Classified:
        """The images of each fold with its temperature, fold after fold; with one temperature, all
        images in their order."""
        own = np.arange(len(self.classes))
        parts, targets, scales = [], [], []
        for fold, temperature in enumerate(temperatures):
            there = self.folds == fold if len(temperatures) > 1 else slice(None)
            of = self.targets[there]
            if len(of):
                scale = self.scale / temperature
                parts.append(ranking(self.images[there], self.classes, of, own, scale))
                targets.append(of)
                scales.append(np.full(len(of), scale))
        return Classified(
            joined(parts), np.concatenate(targets), len(self.classes), np.concatenate(scales)
        )


def folds_of(keys: Sequence[str], folds: int, seed: int) -> Integers:
    """The fold of each image, (N,): as equal in size as can be, by a hash of seed and key."""
    hashes = [hashlib.blake2b(f"fold:{seed}:{k}".encode(), digest_size=8).digest() for k in keys]
    places = np.empty(len(keys), dtype=np.int64)
    places[sorted(range(len(keys)), key=hashes.__getitem__)] = np.arange(len(keys)) % folds
    return places


def fitted_temperature(
    datasets: Sequence[Encoded], chosen: Sequence[npt.NDArray[np.bool_]]
) -> float:
    """The T of least negative log likelihood, from 0.01 to 100: of the mean over datasets of their
    means over the chosen images, so that every dataset weighs the same.

    chosen: of each dataset, (N,). 1, the model's own temperature, if none is chosen.
    """
    from scipy.optimize import minimize_scalar

    there = [(one, mask) for one, mask in zip(datasets, chosen, strict=True) if mask.any()]
    if not there:
        return 1.0

    def loss(log_temperature: float) -> float:
        factor = math.exp(-log_temperature)
        return math.fsum(
            _negative_log_likelihood(one, mask, one.scale * factor) for one, mask in there
        ) / len(there)

    found = minimize_scalar(loss, bounds=(-FARTHEST, FARTHEST), method="bounded")
    return math.exp(float(found.x))


def fold_temperatures(datasets: Sequence[Encoded], folds: int) -> tuple[float, ...]:
    """For each fold, the temperature that the images of all other folds give."""
    return tuple(
        fitted_temperature(datasets, [one.folds != fold for one in datasets])
        for fold in range(folds)
    )


def scaled_metrics(encoded: Encoded, temperatures: Sequence[float]) -> dict[str, tuple[float, int]]:
    """`METRICS` of a dataset: their values and the number of images."""
    scaled = encoded.classified(temperatures)
    mean = math.exp(math.fsum(map(math.log, temperatures)) / len(temperatures))
    values = {TEMPERATURE.name: (mean, len(encoded.targets))}
    for metric in OF_PROBABILITIES:
        if (value := metric.compute(scaled)) is not None:
            values[f"{metric.name}_scaled"] = value
    return values


def _negative_log_likelihood(
    encoded: Encoded, chosen: npt.NDArray[np.bool_], scale: float
) -> float:
    """The mean over the chosen images."""
    places = np.flatnonzero(chosen)
    similarities, targets = encoded.similarities, encoded.targets
    rows = max(1, BLOCK_ELEMENTS // similarities.shape[1])
    parts = []
    for start in range(0, len(places), rows):
        block = places[start : start + rows]
        logits = scale * similarities[block].astype(np.float64)  # (b, C)
        right = logits[np.arange(len(block)), targets[block]]
        best = logits.max(axis=1)
        parts.append(float((best - right + np.log(np.exp(logits - best[:, None]).sum(1))).sum()))
    return math.fsum(parts) / len(places)
