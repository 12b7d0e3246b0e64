"""Consensus of TALL masks: what helps a single task alone is left out (arXiv 2405.07813)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from fomo_dagster.merging.pieces import Array
from fomo_dagster.merging.task_vectors import Summing


class Consensus(Summing):
    """f: Στ where at least `agreement` models use a parameter, else 0; model k uses those where
    `|τ_k| ≥ λ · |Στ - τ_k|`, its TALL mask. τ_k stands for c_k τ_k.

    Fewer models than `agreement` must all use it. Where no model changed a parameter, 0 ≥ 0 counts
    as use, which changes nothing.
    """

    technique: Literal["consensus"] = "consensus"
    threshold: float = Field(0.4, ge=0, description="λ; 0 keeps everything.")
    agreement: int = Field(2, ge=1, description="Models that use a parameter, at least.")

    def join(self, vectors: Array, weights: Array) -> Array:
        vectors = vectors * weights[:, None]
        total = super().join(vectors, np.ones(len(vectors)))
        users = (np.abs(vectors) >= self.threshold * np.abs(total - vectors)).sum(axis=0)
        return np.where(users >= min(self.agreement, len(vectors)), total, 0.0)
