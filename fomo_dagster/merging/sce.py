"""SCE: select what varies, weigh by the size of changes, erase minorities (arXiv 2408.07990)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from fomo_dagster.merging.exact_quantiles import Magnitudes, T, select
from fomo_dagster.merging.pieces import Array, Piece, Rule
from fomo_dagster.merging.task_vectors import TaskVectorTechnique

if TYPE_CHECKING:
    from fomo_dagster.merging.checkpoints import Checkpoints


class Sce(TaskVectorTechnique):
    """f, tensor by tensor: of its P parameters the `round(density · P)` with the largest variance
    between the models are selected, at least one; model k weighs |c_k| η_k, η_k the share of its
    squares Σ τ_k² among those of all; of each parameter the sign of Σ_k c_k τ_k is elected, and the
    values of that sign are averaged with the weights of their models. Coefficients are not the
    paper's: a model with |c_k| = 2 counts, in variance, election and mean, as two, with 0 as none.

    The paper leaves open what becomes of the weights of erased values: here, as in mergekit, those
    that stay add up to 1. Where the last variance that is selected has equals, so are they: equal
    models are selected whole.
    """

    technique: Literal["sce"] = "sce"
    weighted_version: ClassVar[int] = 3  # 3: what is selected is by the weights, too
    density: float = Field(0.1, gt=0, le=1, description="Share of parameters that is selected.")

    def joint(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        coefficients = self.weights(checkpoints.count)
        signs, weights = np.sign(coefficients), np.abs(coefficients)
        weights /= weights.max() or 1.0  # equal ones are 1, as if none were given

        def signed(piece: Piece) -> Array:
            return piece.vectors * signs[:, None]

        def rule_of(name: str) -> Rule:
            least = self._least_variance(checkpoints, name, signed, weights)

            def selected(piece: Piece) -> Array:
                vectors = signed(piece)
                vectors *= _variances(vectors, weights) >= least
                return vectors

            squares = np.zeros(checkpoints.count)
            for found in checkpoints.over_pieces(name, lambda piece: _squares(selected(piece))):
                squares += found
            return lambda piece: _fused(selected(piece), weights, squares)

        return rule_of

    def _least_variance(
        self, checkpoints: Checkpoints, name: str, signed: Callable[[Piece], Array], weights: Array
    ) -> float:
        size = checkpoints.size(name)
        selected = max(1, round(self.density * size))
        if selected >= size:
            return 0.0

        def go_through(work: Callable[[Magnitudes], T]) -> Iterator[T]:
            return checkpoints.over_pieces(
                name, lambda piece: work(_variances(signed(piece), weights))
            )

        return select(go_through, [size - selected])[0]


def _variances(vectors: Array, weights: Array) -> Magnitudes:
    """(K, n), (K,) → (n,), in the precision in which they are compared; exactly 0 for equal
    models, and where none counts."""
    total = weights.sum() or 1.0
    apart = vectors - vectors[0]
    apart -= (weights[:, None] * apart).sum(axis=0) / total
    variances: Array = (weights[:, None] * (apart * apart)).sum(axis=0) / total
    return variances.astype(np.float32)


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
