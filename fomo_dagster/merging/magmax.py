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
        magnitudes = np.abs(vectors) * np.abs(weights)[:, None]
        largest = len(vectors) - 1 - magnitudes[::-1].argmax(axis=0)
        chosen: Array = np.take_along_axis(vectors, largest[None], axis=0)[0]
        chosen *= np.sign(weights)[largest]
        return chosen
