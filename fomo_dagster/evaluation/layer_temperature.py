"""Layer-stack temperature scaling: every layer has a weighted vote, its inverse temperature.

Khalifa et al. 2022, arXiv 2211.10193. The logits are Σ_l w_l · s_l, with s_l the model's scale
times the similarities of layer l. A layer's classifier is here the model's own: the image features
of `models/layers.py`, normalised, against the texts. The weights have the least negative log
likelihood; that none is negative, since a vote is for a class, is assumed. With weights of 0 but
for the last layer, this is temperature scaling, w_L = 1/T; see there for the folds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fomo_dagster.evaluation.classification import METRICS as CLASSIFICATION_METRICS
from fomo_dagster.evaluation.ranking import Floats
from fomo_dagster.evaluation.temperature import (
    BLOCK_ELEMENTS,
    FARTHEST,
    OF_PROBABILITIES,
    Encoded,
    fitted_temperature,
)
from fomo_dagster.metrics import Metric

Weights = npt.NDArray[np.float64]

COMPARED = (
    next(metric for metric in CLASSIFICATION_METRICS if metric.is_score),
    *OF_PROBABILITIES,
)
"""The metrics that weights of layers change."""
WEIGHT = "layer_weight_{}"
METRICS: tuple[Metric, ...] = (
    Metric(
        WEIGHT.format("<l>"),
        "the weight of the logits of layer l, counted from 1, that is fitted (the mean over folds)",
        unit="factor",
        best="neither",
    ),
    *(metric.variant("stacked", "with the weighted logits of all layers") for metric in COMPARED),
)


@dataclass(frozen=True)
class EncodedLayers:
    """The images of a dataset and its classes, encoded by every layer.

    layers: (L, N, D), L2-normalised; last: the same as of the last layer alone.
    """

    layers: Floats
    last: Encoded

    def weighted(self, weights: Sequence[Weights]) -> Encoded:
        """The images of each fold with its weights, (L,): as their similarities are linear in the
        features, those of Σ_l w_l · f_l."""
        images = np.zeros_like(self.last.images)
        for fold, of_fold in enumerate(weights):
            there = self.last.folds == fold
            for layer, weight in zip(self.layers, of_fold, strict=True):
                images[there] += np.float32(weight) * layer[there]
        return replace(self.last, images=images)


def fitted_weights(
    datasets: Sequence[EncodedLayers], chosen: Sequence[npt.NDArray[np.bool_]]
) -> Weights:
    """The weights, (L,), of least negative log likelihood: of the mean over datasets of their means
    over the chosen images. Each is from 0 to 100.

    chosen: of each dataset, (N,). If none is chosen, 1 for the last layer alone: the model itself.
    The loss is convex, so the search from the fitted temperature finds the least.
    """
    from scipy.optimize import minimize

    start = np.zeros(len(datasets[0].layers))
    start[-1] = 1 / fitted_temperature([one.last for one in datasets], chosen)
    there = [(one, np.flatnonzero(m)) for one, m in zip(datasets, chosen, strict=True) if m.any()]
    if not there:
        return start

    def loss(weights: Weights) -> tuple[float, Weights]:
        found = [_negative_log_likelihood(one, places, weights) for one, places in there]
        return (
            math.fsum(value for value, _ in found) / len(found),
            np.sum([slope for _, slope in found], axis=0) / len(found),
        )

    bounds = [(0, math.exp(FARTHEST))] * len(start)
    weights: Weights = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return weights


def fold_weights(datasets: Sequence[EncodedLayers], folds: int) -> tuple[Weights, ...]:
    """For each fold, the weights that the images of all other folds give."""
    return tuple(
        fitted_weights(datasets, [one.last.folds != fold for one in datasets])
        for fold in range(folds)
    )


def stacked_metrics(
    encoded: EncodedLayers, weights: Sequence[Weights]
) -> dict[str, tuple[float, int]]:
    """`METRICS` of a dataset: their values and the number of images."""
    images = len(encoded.last.targets)
    means = np.mean(weights, axis=0).tolist()
    values = {WEIGHT.format(layer): (mean, images) for layer, mean in enumerate(means, start=1)}
    return values | {
        f"{name}_stacked": value
        for name, value in compared_metrics(encoded.weighted(weights)).items()
    }


def compared_metrics(
    encoded: Encoded, temperatures: Sequence[float] = (1.0,)
) -> dict[str, tuple[float, int]]:
    """`COMPARED` of a dataset, under their own names."""
    found = encoded.classified(temperatures)
    values = {metric.name: metric.compute(found) for metric in COMPARED}
    return {name: value for name, value in values.items() if value is not None}


def _negative_log_likelihood(
    encoded: EncodedLayers, places: npt.NDArray[np.int64], weights: Weights
) -> tuple[float, Weights]:
    """The mean over the images at these places, and its derivatives by the weights, (L,)."""
    classes, scale = encoded.last.classes.astype(np.float64), encoded.last.scale  # (C, D)
    rows = max(1, BLOCK_ELEMENTS // max(len(classes), len(weights) * classes.shape[1]))
    total, slopes = 0.0, np.zeros(len(weights))
    for start in range(0, len(places), rows):
        block = places[start : start + rows]
        layers = encoded.layers[:, block].astype(np.float64)  # (L, b, D)
        logits = scale * np.tensordot(weights, layers, 1) @ classes.T  # (b, C)
        own = np.arange(len(block)), encoded.last.targets[block]
        logits -= logits.max(axis=1, keepdims=True)
        right = logits[own]
        np.exp(logits, out=logits)
        sums = logits.sum(axis=1)
        total += float((np.log(sums) - right).sum())
        logits /= sums[:, None]
        logits[own] -= 1  # now the derivative by the logits
        slopes += np.tensordot(layers, scale * logits @ classes, 2)
    return total / len(places), slopes / len(places)
