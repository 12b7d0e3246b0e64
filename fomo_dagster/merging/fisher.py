"""Fisher merging: means of parameters by how well each model's data determine them (arXiv
2111.09832)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from fomo_dagster.merging.linear import Shares
from fomo_dagster.merging.pieces import Array, Piece, Rule
from fomo_dagster.merging.technique import Technique, as_shares

if TYPE_CHECKING:
    from collections.abc import Callable

    from fomo_dagster.merging.checkpoints import Checkpoints


class Fisher(Technique):
    """`Σ_k c_k F_k θ_k / Σ_k c_k F_k` for every parameter, where F_k is the diagonal of the Fisher
    information of what model k was trained on (Fisher merging, arXiv 2111.09832). The coefficients
    add up to 1."""

    technique: Literal["fisher"] = "fisher"
    coefficients: Shares | None = Field(
        None, description="One per model, oldest first; null: all equal."
    )
    floor: float = Field(
        1e-6,
        gt=0,
        description="F_k is at least this, so that parameters which no model's data determine are "
        "averaged.",
    )
    samples: int = Field(
        2048,
        ge=1,
        description="Samples of a stage's chunk that its Fisher information is estimated from; at "
        "most all of them.",
    )
    batch_size: int = Field(
        64,
        ge=2,
        description="Batch size of the estimate: each image is told apart among as many texts.",
    )
    needs_statistics: ClassVar[bool] = True

    def why_unsupported(self, models: int) -> str | None:
        if self.coefficients is not None and len(self.coefficients) != models:
            given = f"it has {len(self.coefficients)} coefficients {list(self.coefficients)}"
            return f"{given}: give one for each model"
        return None

    def shares(self, models: int) -> tuple[float, ...]:
        return as_shares(self.coefficients or ()) or super().shares(models)

    def plan(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        """The first half of the checkpoints are the models, the other half their F."""
        models = checkpoints.count // 2
        coefficients = self.coefficients or (1 / models,) * models
        shares = np.array(coefficients)[:, None]  # (K, 1)

        def rule(piece: Piece) -> Array:
            weights, fisher = piece.models[:models], piece.models[models:]  # (K, n)
            np.maximum(fisher, self.floor, out=fisher)
            fisher *= shares
            fisher /= fisher.sum(axis=0)
            weights *= fisher
            return np.add.reduce(weights)

        return lambda name: rule
