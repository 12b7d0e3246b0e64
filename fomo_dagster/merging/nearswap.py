"""NearSwap: moves to the newer model where the two are near (mergekit)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from fomo_dagster.merging.pieces import Array, Piece, Plan
from fomo_dagster.merging.technique import Technique

if TYPE_CHECKING:
    from fomo_dagster.merging.checkpoints import Checkpoints

LEAST = 1e-6
"""The least difference that is told from none."""


class NearSwap(Technique):
    """`(1 - w) · θ_1 + w · θ_2` with `w = min(1, t / |θ_2 - θ_1|)` for every parameter: what is at
    most t apart becomes the newer model's, and nothing moves further than t (alchemonaut 2024, as
    in mergekit).

    Differences below 1e-6 count as 1e-6.
    """

    technique: Literal["nearswap"] = "nearswap"
    distance: float = Field(1e-4, gt=0, description="t: how far a parameter moves at most.")

    def why_unsupported(self, models: int) -> str | None:
        return None if models == 2 else "it moves an older model towards a newer one"

    def plan(self, checkpoints: Checkpoints) -> Plan:
        return lambda name: self._moved

    def _moved(self, piece: Piece) -> Array:
        older, newer = piece.models
        newer -= older
        newer *= np.minimum(1, self.distance / np.maximum(np.abs(newer), LEAST))
        moved: Array = older
        moved += newer
        return moved
