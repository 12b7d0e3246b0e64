"""TIES: trim, elect a sign, merge what agrees with it (arXiv 2306.01708)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from fomo_dagster.merging.sparsifying import Trimming
from fomo_dagster.merging.task_vectors import Elementwise
from fomo_dagster.merging.technique import Array


class SignElection(Elementwise):
    """f: of each parameter the sign of Σ_k τ_k is elected; the values of that sign are merged.

    Where the values cancel out exactly there is no sign (sgn 0 = 0), and θ₀ stays: a sign of the
    majority, as in the authors' code, would prefer one of two equals.
    """

    combine: Literal["mean", "sum", "max"] = Field(
        "mean", description="Of the values that have the elected sign; max: the largest magnitude."
    )

    def join(self, vectors: Array) -> Array:
        elected = np.sign(vectors.sum(axis=0))
        along = vectors * elected  # positive where the sign is the elected one
        agrees = along > 0
        along *= agrees
        if self.combine == "max":
            merged: Array = along.max(axis=0)
        else:
            merged = along.sum(axis=0)
        if self.combine == "mean":
            merged /= np.maximum(agrees.sum(axis=0), 1)
        merged *= elected
        return merged


class Ties(Trimming, SignElection):
    """Each task vector keeps the `density` largest magnitudes of all its parameters; then signs are
    elected, and the values that have the elected one are averaged (arXiv 2306.01708)."""

    technique: Literal["ties"] = "ties"
