"""TSV-M: merges each model's strongest singular vectors, made orthogonal (arXiv 2412.00081)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fomo_dagster.merging.matrices import Changes, MatrixTechnique, decomposed, orthogonal

if TYPE_CHECKING:
    from torch import Tensor


class TsvMerge(MatrixTechnique):
    """f of a matrix is `Û diag(s_1, …, s_K) V̂ᵀ`: of each c_k τ_k = U_k diag(s_k) V_kᵀ the largest
    r/K singular values and their vectors, side by side, where Û and V̂ are the nearest orthogonal
    ones to [U_1 … U_K] and [V_1 … V_K] (TSV-M, arXiv 2412.00081). Other parameters are averaged.

    r is the least of rows and columns; of r/K the whole part is taken, and at least one. As in the
    authors' code, the queries, keys and values of attention are one matrix. Beyond it: patch
    embeddings and the projections into the common space are matrices, tables of positions are not,
    and directions that a model lacks (s = 0), or that several share exactly, make no new ones.
    """

    technique: Literal["tsv_merge"] = "tsv_merge"

    def merge_matrix(self, changes: Changes) -> Tensor:
        import torch

        each = max(1, changes.rank // changes.count)
        lefts, strengths, rights = [], [], []
        for model in range(changes.count):
            left, values, right = decomposed(changes.of(model))
            lefts.append(left[:, :each].clone())  # and what else it has is freed
            strengths.append(values[:each].clone())
            rights.append(right[:each].clone())
        left, right = orthogonal(torch.cat(lefts, dim=1)), orthogonal(torch.cat(rights))
        return left * torch.cat(strengths) @ right
