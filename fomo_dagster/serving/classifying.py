"""Probabilities of classes that a request names, as the evaluation classifies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fomo_dagster.exporting.onnx_folder import Description
from fomo_dagster.serving.engine import Floats


@dataclass(frozen=True)
class Classified:
    """similarities, probabilities: of each class, (C,). kind: `softmax`, by which they add up to 1,
    or `sigmoid`, by which each class is judged by itself."""

    similarities: Floats
    probabilities: Floats
    kind: Literal["softmax", "sigmoid"]


def class_embeddings(features: Floats, each: int) -> Floats:
    """Features of length 1, (C·K, D), K = `each` of a class in a row, to (C, D): their means, of
    length 1 again. As `evaluation.prompts.mean_embeddings`, without PyTorch."""
    if each == 1:
        return features
    means = features.reshape(-1, each, features.shape[1]).mean(axis=1)  # (C, D)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    embeddings: Floats = means / np.maximum(lengths, 1e-12)
    return embeddings


def classified(image: Floats, classes: Floats, model: Description) -> Classified:
    """image: (D,), classes: (C, D), both of length 1. A model with a bias was trained to tell by a
    sigmoid for each pair (SigLIP, arXiv 2303.15343), others by a softmax."""
    similarities = classes @ image  # (C,)
    logits = model.scale * similarities.astype(np.float64)
    if model.bias is not None:
        # Of exp, only what is at most 1 is taken, which no logit makes overflow.
        logits += model.bias
        small = np.exp(-np.abs(logits))
        probabilities = np.where(logits >= 0, 1 / (1 + small), small / (1 + small))
        return Classified(similarities, probabilities.astype(np.float32), "sigmoid")
    powers = np.exp(logits - logits.max())
    return Classified(similarities, (powers / powers.sum()).astype(np.float32), "softmax")
