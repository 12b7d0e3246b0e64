"""Iso-C and Iso-CTS: give all directions of the merged change the same strength
(arXiv 2502.04959)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fomo_dagster.merging.matrices import Changes, MatrixTechnique, decomposed, orthogonal

if TYPE_CHECKING:
    from torch import Tensor


class IsoC(MatrixTechnique):
    """f of a matrix is `s̄ · U Vᵀ` of the sum Σ_k c_k τ_k = U diag(s) Vᵀ, where s̄ is the mean of
    its r singular values (Iso-C, arXiv 2502.04959). Other parameters are averaged.

    r is the least of rows and columns. As in the authors' code, the queries, keys and values of
    attention are one matrix. Beyond it: patch embeddings and the projections into the common space
    are matrices, tables of positions are not, and directions that the sum lacks (s = 0) stay away.
    What rounding left in weights of a low rank, as of merged adapters, becomes as strong as the
    rest.
    """

    technique: Literal["iso_c"] = "iso_c"

    def merge_matrix(self, changes: Changes) -> Tensor:
        left, values, right = decomposed(changes.total())
        return values.sum() / changes.rank * (left @ right)


class IsoCts(MatrixTechnique):
    """Like Iso-C, with the last directions of the sum replaced by what is each model's own
    (Iso-CTS, arXiv 2502.04959): `s̄ · Û V̂ᵀ`, made orthogonal of the first k directions of
    Σ_k c_k τ_k and of the strongest d of each (I - U_1:k U_1:kᵀ) c_k τ_k. Other parameters are
    averaged.

    k = r - K d, and d = (1 - `common`) r / K, rounded. s̄ is the mean of these r singular values.
    Otherwise as `iso_c`.
    """

    technique: Literal["iso_cts"] = "iso_cts"
    common: float = Field(
        0.8, ge=0, le=1, description="Share of the directions that is taken from the sum."
    )

    def merge_matrix(self, changes: Changes) -> Tensor:
        import torch

        rank, models = changes.rank, changes.count
        own = min(round((rank - int(rank * self.common)) / models), rank // models)
        shared = rank - models * own
        left, values, right = decomposed(changes.total())
        lefts, strengths, rights = [left[:, :shared]], [values[:shared]], [right[:shared]]
        for model in range(models if own else 0):
            change = changes.of(model)
            left, values, right = decomposed(change - lefts[0] @ (lefts[0].T @ change))
            lefts.append(left[:, :own].clone())
            strengths.append(values[:own].clone())
            rights.append(right[:own].clone())
        strength = torch.cat(strengths).sum() / rank
        return strength * (orthogonal(torch.cat(lefts, dim=1)) @ orthogonal(torch.cat(rights)))
