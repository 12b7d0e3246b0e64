"""WUDI: descends to where the merged change disturbs none of the models' own (arXiv 2503.08099)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fomo_dagster.merging.matrices import Changes, MatrixTechnique

if TYPE_CHECKING:
    from torch import Tensor

RATES, SMALL = (0.9, 0.999), 1e-8
"""Of Adam: β_1 and β_2, and ε."""


class Wudi(MatrixTechnique):
    """f of a matrix is what Adam makes of Σ_k c_k τ_k in some steps against the loss
    `Σ_k ‖(f - c_k τ_k) (c_k τ_k)ᵀ‖² / ‖c_k τ_k‖²`: rows of τ_k stand for the inputs that model k
    has seen (WUDI-Merging, arXiv 2503.08099). Other parameters are averaged.

    As in the authors' code, the queries, keys and values of attention are one matrix. Beyond it:
    patch embeddings and projections are merged so, too, other parameters do not stay θ₀'s, and a
    model that did not change a matrix has no term. The gradient is 2 (f A - B), with
    A = Σ τ_kᵀ τ_k / ‖τ_k‖² and B = Σ τ_k τ_kᵀ τ_k / ‖τ_k‖²: a step costs the same for any number
    of models.
    """

    technique: Literal["wudi"] = "wudi"
    steps: int = Field(300, ge=1, description="Number of Adam's steps.")
    learning_rate: float = Field(1e-5, gt=0, description="Adam's; it is not scaled by anything.")

    def merge_matrix(self, changes: Changes) -> Tensor:
        import torch

        merged = torch.zeros(changes.matrix.rows, changes.matrix.columns, dtype=torch.float64)
        inner = torch.zeros(changes.matrix.columns, changes.matrix.columns, dtype=torch.float64)
        target = torch.zeros_like(merged)
        moved = 0
        for model in range(changes.count):
            change = changes.of(model)
            merged += change
            squares = float(change.square().sum())
            if squares > 0:
                moved += 1
                products = change.T @ change / squares
                inner += products
                target += change @ products
        if moved < 2:  # nothing disturbs it, and Adam would make steps of what rounding leaves
            return merged
        mean, variance = torch.zeros_like(merged), torch.zeros_like(merged)
        first, second = RATES
        for step in range(1, self.steps + 1):
            slope = torch.addmm(target, merged, inner, beta=-2, alpha=2)
            mean.mul_(first).add_(slope, alpha=1 - first)
            variance.mul_(second).addcmul_(slope, slope, value=1 - second)
            root = (variance / (1 - second**step)).sqrt_().add_(SMALL)
            merged.addcdiv_(mean, root, value=-self.learning_rate / (1 - first**step))
        return merged
