"""DARE: drops changes at random and rescales the rest (arXiv 2311.03099); a random choice as
baseline."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from fomo_dagster.merging.pieces import Array
from fomo_dagster.merging.sparsifying import Choosing, Dropping
from fomo_dagster.merging.task_vectors import Summing
from fomo_dagster.merging.ties import SignElection


class Dare(Dropping, Summing):
    """`θ₀ + s · Σ_k m_k τ_k / (1 - p)`. Each number of the mask m_k is 0 with probability p, else 1
    (arXiv 2311.03099)."""

    technique: Literal["dare"] = "dare"


class DareTies(Dropping, SignElection):
    """Drops and rescales like DARE, then elects signs like TIES instead of adding up."""

    technique: Literal["dare_ties"] = "dare_ties"


class RandomSelection(Choosing, Summing):
    """`θ₀ + s · τ_k`, with k drawn for each parameter with probability |c_k| / Σ |c|: a baseline. A
    negative coefficient takes -τ_k."""

    technique: Literal["random"] = "random"
    weighted_version: ClassVar[int] = 2

    def join(self, vectors: Array, weights: Array) -> Array:
        return super().join(vectors, np.sign(weights))
