"""MagMax: takes the largest change of every parameter (arXiv 2407.06322)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from fomo_dagster.merging.pieces import Array
from fomo_dagster.merging.task_vectors import Elementwise


class MagMax(Elementwise):
    """`θ₀ + s · τ_k`, where k is the model with the largest `|c_k τ_k|`, for each parameter
    separately (arXiv 2407.06322).

    Of equal magnitudes it takes the newest model's, which has seen what the older ones have.
    Coefficients decide which change is taken, not how large it is. A negative one takes -τ_k, and
    0 none.
    """

    technique: Literal["magmax"] = "magmax"
    weighted_version: ClassVar[int] = 2

    def join(self, vectors: Array, weights: Array) -> Array:
        signs, weights = np.sign(weights), np.abs(weights)
        largest = np.abs(vectors[-1]) * weights[-1]
        chosen: Array = vectors[-1] * signs[-1]
        magnitudes = np.empty_like(largest)
        for k in reversed(range(len(vectors) - 1)):
            np.abs(vectors[k], out=magnitudes)
            magnitudes *= weights[k]
            vectors[k] *= signs[k]
            chosen = np.where(magnitudes > largest, vectors[k], chosen)
            np.maximum(largest, magnitudes, out=largest)
        return chosen
