"""TIES: trims, elects a sign, and merges what agrees with it (arXiv 2306.01708)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
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
        are_alike = bool((weights == 1).all())
        along = vectors if are_alike else vectors * weights[:, None]
        total: Array = along.sum(axis=0)
        elected = np.sign(total)
        along *= elected  # positive where the sign is the elected one
        agrees = along > 0
        if self.combine == "max":
            along *= agrees
            largest: Array = along.max(axis=0)
            largest /= _or_one(np.abs(weights)[along.argmax(axis=0)])
            largest *= elected
            return largest
        np.maximum(along, np.zeros_like(total), out=along)
        merged: Array = along.sum(axis=0)
        if self.combine == "mean" and are_alike:
            merged /= np.maximum(_counted(agrees), 1)
        elif self.combine == "mean":
            merged /= _or_one((agrees * np.abs(weights)[:, None]).sum(axis=0))
        # Where there is no sign, 0 of the sign that the sum has.
        return np.copysign(merged, total, out=merged)


def _counted(agrees: npt.NDArray[np.bool_]) -> npt.NDArray[np.unsignedinteger[Any]]:
    """(K, n) → (n,), in as few bytes as K takes."""
    kind = np.min_scalar_type(len(agrees))
    counts: npt.NDArray[np.unsignedinteger[Any]]
    counts = np.add.reduce(agrees.view(np.uint8), axis=0, dtype=kind)
    return counts


def _or_one(divisors: Array) -> Array:
    """Where nothing takes part there is nothing to divide."""
    return np.where(divisors > 0, divisors, 1.0)


class Ties(Trimming, SignElection):
    """Each task vector keeps its share `density` of largest magnitudes. Then a sign is elected for
    each parameter, and the values with that sign are averaged (arXiv 2306.01708)."""

    technique: Literal["ties"] = "ties"
