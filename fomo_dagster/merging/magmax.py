"""MagMax: of every parameter the change that is the largest (arXiv 2407.06322)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fomo_dagster.merging.task_vectors import Elementwise
from fomo_dagster.merging.technique import Array


class MagMax(Elementwise):
    """`θ₀ + s · τ_k`, k the model with the largest magnitude, for every parameter alone; of equal
    magnitudes the newest model's, which has seen what the older ones have."""

    technique: Literal["magmax"] = "magmax"

    def join(self, vectors: Array) -> Array:
        largest = len(vectors) - 1 - np.abs(vectors[::-1]).argmax(axis=0)
        chosen: Array = np.take_along_axis(vectors, largest[None], axis=0)[0]
        return chosen
