"""TIES: trim, elect a sign, merge what agrees with it (arXiv 2306.01708)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from fomo_dagster.merging.pieces import Array
from fomo_dagster.merging.sparsifying import Trimming
from fomo_dagster.merging.task_vectors import Elementwise


class SignElection(Elementwise):
    """f: of each parameter the sign of Σ_k c_k τ_k is elected; the values c_k τ_k of that sign are
    merged. Their mean is `Σ c_k τ_k / Σ |c_k|` over these models alone, the sum is not divided, and
    of the largest c_k τ_k in magnitude it is τ_k that is taken (-τ_k where c_k is negative).

    Where the values cancel out exactly there is no sign (sgn 0 = 0), and θ₀ stays: a sign of the
    majority, as in the authors' code, would prefer one of two equals.
    """

    weighted_version: ClassVar[int] = 2

    combine: Literal["mean", "sum", "max"] = Field(
        "mean", description="Of the values that have the elected sign; max: the largest magnitude."
    )

    def join(self, vectors: Array, weights: Array) -> Array:
        along = vectors * weights[:, None]
        elected = np.sign(along.sum(axis=0))
        along *= elected  # positive where the sign is the elected one
        agrees = along > 0
        along *= agrees
        if self.combine == "max":
            merged: Array = along.max(axis=0)
            merged /= _or_one(np.abs(weights)[along.argmax(axis=0)])
        else:
            merged = along.sum(axis=0)
        if self.combine == "mean":
            merged /= _or_one((agrees * np.abs(weights)[:, None]).sum(axis=0))
        merged *= elected
        return merged


def _or_one(divisors: Array) -> Array:
    """Where nothing takes part there is nothing to divide."""
    return np.where(divisors > 0, divisors, 1.0)


class Ties(Trimming, SignElection):
    """Each task vector keeps the `density` largest magnitudes of all its parameters; then signs are
    elected, and the values that have the elected one are averaged (arXiv 2306.01708)."""

    technique: Literal["ties"] = "ties"
