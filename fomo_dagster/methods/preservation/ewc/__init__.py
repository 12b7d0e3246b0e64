"""EWC: anchors the weights that earlier data determined well (arXiv 1612.00796)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from fomo_dagster.methods.preservation.declaration import ByImportance

if TYPE_CHECKING:
    from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs


class EWC(ByImportance):
    """Adds `strength / 2 · Σ F (θ - θ*)²` to the loss. F is the Fisher information of earlier data
    (arXiv 1612.00796, 1805.06370)."""

    name: Literal["ewc"]
    of_likelihood: ClassVar[bool] = True
    strength: float = Field(1.0, gt=0, description="Weight of the penalty.")
    decay: float = Field(
        1.0,
        ge=0,
        le=1,
        description="At each stage, multiplies the Fisher information of all earlier stages.",
    )
    samples: int = Field(
        2048,
        ge=1,
        description="Samples of the chunk that the Fisher information is estimated from; at most "
        "all of them.",
    )
    batch_size: int = Field(
        64,
        ge=2,
        description="Batch size of the estimate: each image is told apart among as many texts.",
    )

    @property
    def batches(self) -> Mapping[str, int]:
        return {"batch_size": self.batch_size}

    def begin(self, stage_context: StageContext, stage_inputs: StageInputs) -> StageHooks:
        from fomo_dagster.methods.preservation.ewc.hooks import EWCHooks

        return EWCHooks(
            stage_context,
            stage_inputs,
            strength=self.strength,
            decay=self.decay,
            samples=self.samples,
            batch_size=self.batch_size,
        )
