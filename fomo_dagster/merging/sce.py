"""SCE: selects what varies, weighs by the size of changes, erases minorities (arXiv 2408.07990)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from fomo_dagster.merging.exact_quantiles import T, select
from fomo_dagster.merging.pieces import Array, Magnitudes, Piece, Rule
from fomo_dagster.merging.task_vectors import TaskVectorTechnique

if TYPE_CHECKING:
    from fomo_dagster.merging.checkpoints import Checkpoints


class Sce(TaskVectorTechnique):
    """Tensor by tensor, selects the parameters that vary most between the models, elects signs, and
    averages the values with that sign; a model weighs by the squares of its changes
    (arXiv 2408.07990).

    Of P parameters of a tensor it selects the `round(density · P)` with the largest variance
    between the models, at least one. Model k weighs |c_k| η_k, where η_k is its share of all
    models' sums of squares Σ τ_k². For each parameter it elects the sign of Σ_k c_k τ_k, and
    averages the values with that sign by the weights of their models. The paper has no
    coefficients. Here a model with |c_k| = 2 counts as two in variance, election and mean, and one
    with 0 as none.

    The paper does not say what becomes of the weights of erased values. Here, as in mergekit, the
    remaining weights add up to 1. If several parameters have the variance at the cut-off, all of
    them are selected: equal models are selected whole.
    """

    technique: Literal["sce"] = "sce"
    weighted_version: ClassVar[int] = 3  # 3: what is selected is by the weights, too
    density: float = Field(0.1, gt=0, le=1, description="Share of parameters to select.")

    def joint(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        coefficients = self.weights(checkpoints.count)
        signs, weights = np.sign(coefficients), np.abs(coefficients)
        weights /= weights.max() or 1.0  # equal ones are 1, as if none were given

        def signed(piece: Piece) -> Array:
            vectors = piece.into_vectors()
            vectors *= signs[:, None]
            return vectors

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

        def sampled(step: int) -> Magnitudes:
            pieces = checkpoints.sampled(name, step)
            return np.concatenate([_variances(signed(piece), weights) for piece in pieces])

        return select(go_through, [size - selected], size, sampled)[0]


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
