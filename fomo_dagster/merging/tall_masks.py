"""Consensus of TALL masks: drops what helps only a single task (arXiv 2405.07813)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from fomo_dagster.merging.pieces import Array
from fomo_dagster.merging.task_vectors import Summing


class Consensus(Summing):
    """f is Στ where at least `agreement` models use a parameter, else 0. Model k uses a parameter
    if `|τ_k| ≥ λ · |Στ - τ_k|`, which is its TALL mask (arXiv 2405.07813). τ_k stands for c_k τ_k.

    If there are fewer models than `agreement`, all must use it. If no model changed a parameter, 0
    ≥ 0 counts as use, which changes nothing.
    """

    technique: Literal["consensus"] = "consensus"
    threshold: float = Field(0.4, ge=0, description="λ; 0 keeps everything.")
    agreement: int = Field(2, ge=1, description="Least number of models that must use a parameter.")

    def join(self, vectors: Array, weights: Array) -> Array:
        vectors = vectors * weights[:, None]
        total = sum(vectors[1:], vectors[0])
        users = (np.abs(vectors) >= self.threshold * np.abs(total - vectors)).sum(axis=0)
        return np.where(users >= min(self.agreement, len(vectors)), total, 0.0)
