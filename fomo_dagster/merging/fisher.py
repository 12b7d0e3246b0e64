"""Fisher merging: means of parameters by how well each model's data determine them (arXiv
2111.09832)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from fomo_dagster.merging.pieces import Array, Piece, Rule
from fomo_dagster.merging.statistics import StatisticsTechnique

if TYPE_CHECKING:
    from collections.abc import Callable

    from fomo_dagster.merging.checkpoints import Checkpoints


class Fisher(StatisticsTechnique):
    """`Σ_k c_k F_k θ_k / Σ_k c_k F_k` for every parameter, where F_k is the diagonal of the Fisher
    information of what model k was trained on, with a root mean square of 1 over the model (Fisher
    merging, arXiv 2111.09832). The coefficients add up to 1."""

    technique: Literal["fisher"] = "fisher"
    floor: float = Field(
        1e-6,
        gt=0,
        description="F_k is at least this, so that parameters which no model's data determine are "
        "averaged.",
    )
    statistics: ClassVar[str] = "fisher"
    statistics_as_models: ClassVar[bool] = True

    def plan(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        """The first half of the checkpoints are the models, the other half their F."""
        models = checkpoints.count // 2
        shares = np.array(self.used(models))[:, None]  # (K, 1)

        def rule(piece: Piece) -> Array:
            weights, fisher = piece.models[:models], piece.models[models:]  # (K, n)
            np.maximum(fisher, self.floor, out=fisher)
            fisher *= shares
            fisher /= fisher.sum(axis=0)
            weights *= fisher
            merged: Array = np.add.reduce(weights)
            return merged

        return lambda name: rule
