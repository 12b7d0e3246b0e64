"""KnOTS: merges changes along the directions that all models share (arXiv 2410.19735)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from fomo_dagster.merging.matrices import Changes, MatrixTechnique, decomposed
from fomo_dagster.merging.pieces import Rule
from fomo_dagster.merging.ties import Ties

if TYPE_CHECKING:
    from torch import Tensor

    from fomo_dagster.merging.checkpoints import Checkpoints


class Knots(MatrixTechnique):
    """f of a matrix is `U · TIES(Uᵀ c_1 τ_1, …, Uᵀ c_K τ_K)`, along the directions U of all changes
    together, [c_1 τ_1 … c_K τ_K] = U diag(s) [V_1 … V_K] (KnOTS-TIES, arXiv 2410.19735). Other
    parameters are merged by TIES as they are.

    TIES trims every matrix, or other tensor, for itself; the authors trim the whole model at once.
    The queries, keys and values of attention are a matrix each. The paper merges adapters by the
    changes that they make, which weights have too that adapters were merged into.
    """

    technique: Literal["knots"] = "knots"
    attention_apart: ClassVar[bool] = True
    density: float = Field(
        0.2, gt=0, le=1, description="Share of the largest magnitudes to keep of each model."
    )

    def joint(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        ties = Ties(density=self.density, over="tensor", coefficients=self.coefficients)
        return ties.joint(checkpoints)

    def merge_matrix(self, changes: Changes) -> Tensor:
        import torch

        directions = _shared_directions(changes)
        weights = [abs(float(c)) for c in changes.coefficients]

        def kept(model: int) -> Tensor:
            return _trimmed(directions.T @ changes.of(model), self.density)

        total = kept(0)
        for model in range(1, changes.count):
            total += kept(model)
        elected = total.sign()
        merged, divisors = torch.zeros_like(total), torch.zeros_like(total)
        for model, weight in enumerate(weights):  # once more, in place of holding all
            values = kept(model)
            agrees = values * elected > 0
            merged += values * agrees
            divisors += weight * agrees
        return directions @ (merged / torch.where(divisors > 0, divisors, 1.0))


def _shared_directions(changes: Changes) -> Tensor:
    """U, (m, q), of the changes side by side; by the triangular factors of [… τ_k]ᵀ = Q R, one
    model after the other."""
    import torch

    factor = changes.of(0).T
    for model in range(1, changes.count):
        stacked = torch.cat([factor, changes.of(model).T])
        factor = torch.linalg.qr(stacked, mode="r").R
    return decomposed(factor.T.contiguous()).left


def _trimmed(values: Tensor, density: float) -> Tensor:
    """The `round(density · P)` largest magnitudes of P; all that equal the last of them."""
    import torch

    count = round(density * values.numel())
    if count == 0:
        return torch.zeros_like(values)
    magnitudes = values.abs().float()
    least = magnitudes.reshape(-1).kthvalue(values.numel() - count + 1).values
    return values * (magnitudes >= least)
