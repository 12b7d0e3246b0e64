"""SCE: select what varies, weigh by the size of changes, erase minorities (arXiv 2408.07990)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from fomo_dagster.merging.selection import Magnitudes, T, select
from fomo_dagster.merging.task_vectors import TaskVectorTechnique
from fomo_dagster.merging.technique import Array, Piece, Rule

if TYPE_CHECKING:
    from fomo_dagster.merging.checkpoints import Checkpoints


class Sce(TaskVectorTechnique):
    """f, tensor by tensor: of its P parameters the `round(density · P)` with the largest variance
    between the models are selected, at least one; model k weighs |c_k| η_k, η_k the share of its
    squares Σ τ_k² among those of all; of each parameter the sign of Σ_k c_k τ_k is elected, and the
    values of that sign are averaged with the weights of their models.

    The paper leaves open what becomes of the weights of erased values: here, as in mergekit, those
    that stay add up to 1. Where the last variance that is selected has equals, so are they: equal
    models are selected whole.
    """

    technique: Literal["sce"] = "sce"
    weighted_version: ClassVar[int] = 2
    density: float = Field(0.1, gt=0, le=1, description="Share of parameters that is selected.")

    def joint(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        def rule_of(name: str) -> Rule:
            least = self._least_variance(checkpoints, name)

            def selected(piece: Piece) -> Array:
                vectors = piece.vectors
                vectors *= _variances(vectors) >= least
                return vectors

            squares = np.zeros(checkpoints.count)
            for found in checkpoints.over_pieces(name, lambda piece: _squares(selected(piece))):
                squares += found
            weights = self.weights(checkpoints.count)

            def fused(piece: Piece) -> Array:
                signed = selected(piece) * np.sign(weights)[:, None]
                return _fused(signed, np.abs(weights), squares)

            return fused

        return rule_of

    def _least_variance(self, checkpoints: Checkpoints, name: str) -> float:
        size = checkpoints.size(name)
        selected = max(1, round(self.density * size))
        if selected >= size:
            return 0.0

        def go_through(work: Callable[[Magnitudes], T]) -> Iterator[T]:
            return checkpoints.over_pieces(name, lambda piece: work(_variances(piece.vectors)))

        return select(go_through, [size - selected])[0]


def _variances(vectors: Array) -> Magnitudes:
    """(K, n) → (n,), in the precision in which they are compared; exactly 0 for equal models."""
    variances: Magnitudes = (vectors - vectors[0]).var(axis=0).astype(np.float32)
    return variances


def _squares(vectors: Array) -> Array:
    squares: Array = (vectors * vectors).sum(axis=1)
    return squares


def _fused(vectors: Array, weights: Array, squares: Array) -> Array:
    """(n,): of the values that have the sign of the sum by `weights`, the mean by both."""
    agrees = vectors * np.sign((weights[:, None] * vectors).sum(axis=0)) > 0
    shares = (weights * squares)[:, None] * agrees
    total = shares.sum(axis=0)
    shares *= vectors
    merged: Array = shares.sum(axis=0) / np.where(total > 0, total, 1)
    return merged
