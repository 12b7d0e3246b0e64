"""EWC: weights that the data before made certain stay where they are (arXiv 1612.00796)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from fomo_dagster.methods.preservation.declaration import ByImportance

if TYPE_CHECKING:
    from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs


class EWC(ByImportance):
    """`strength / 2 · Σ F (θ - θ*)²` beside the loss, F the Fisher information of earlier data."""

    name: Literal["ewc"]
    of_likelihood: ClassVar[bool] = True
    strength: float = Field(1.0, gt=0)
    decay: float = Field(
        1.0, ge=0, le=1, description="Of the Fisher information of all stages before, each stage."
    )
    samples: int = Field(
        2048, ge=1, description="Of the chunk, from which it is estimated; no more than it has."
    )
    batch_size: int = Field(
        64, ge=2, description="Of the estimate: as many texts are told apart for each image."
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
