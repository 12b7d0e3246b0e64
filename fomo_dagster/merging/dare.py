"""DARE: drop changes by lot, rescale the rest (arXiv 2311.03099); a choice by lot as baseline."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from fomo_dagster.merging.pieces import Array
from fomo_dagster.merging.sparsifying import Choosing, Dropping
from fomo_dagster.merging.task_vectors import Summing
from fomo_dagster.merging.ties import SignElection


class Dare(Dropping, Summing):
    """`θ₀ + s · Σ_k m_k τ_k / (1 - p)`, each number of m_k 0 with the chance p, else 1."""

    technique: Literal["dare"] = "dare"


class DareTies(Dropping, SignElection):
    """Dropped and rescaled as in DARE, then TIES's election of signs in the place of the sum."""

    technique: Literal["dare_ties"] = "dare_ties"


class RandomSelection(Choosing, Summing):
    """`θ₀ + s · τ_k`, k drawn for every parameter alone with the chance |c_k| / Σ |c|: a baseline.
    A negative coefficient takes -τ_k."""

    technique: Literal["random"] = "random"
    weighted_version: ClassVar[int] = 2

    def join(self, vectors: Array, weights: Array) -> Array:
        return super().join(vectors, np.sign(weights))
