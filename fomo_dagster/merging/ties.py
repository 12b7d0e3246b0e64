"""TIES: trims, elects a sign, and merges what agrees with it (arXiv 2306.01708)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from fomo_dagster.merging.pieces import Array
from fomo_dagster.merging.sparsifying import Trimming
from fomo_dagster.merging.task_vectors import Elementwise


class SignElection(Elementwise):
    """f elects the sign of Σ_k c_k τ_k for each parameter, and merges the values c_k τ_k with that
    sign. mean: `Σ c_k τ_k / Σ |c_k|` over these models only. sum: not divided. max: τ_k of the c_k
    τ_k that is largest in magnitude (-τ_k if c_k is negative).

    If values cancel out exactly there is no sign (sgn 0 = 0), and θ₀ stays. The authors' code uses
    the majority's sign, which would prefer one of two equals.
    """

    weighted_version: ClassVar[int] = 2

    combine: Literal["mean", "sum", "max"] = Field(
        "mean",
        description="What is made of the values with the elected sign. max: the one of largest "
        "magnitude.",
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
    """Each task vector keeps its share `density` of largest magnitudes. Then a sign is elected for
    each parameter, and the values with that sign are averaged (arXiv 2306.01708)."""

    technique: Literal["ties"] = "ties"
