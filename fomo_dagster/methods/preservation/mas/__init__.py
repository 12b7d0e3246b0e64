"""MAS: anchors the weights that the outputs are sensitive to (arXiv 1711.09601)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from fomo_dagster.methods.preservation.declaration import ByImportance

if TYPE_CHECKING:
    from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs


class MAS(ByImportance):
    """Adds `strength · Σ Ω (θ - θ*)²` to the loss. Ω is the sensitivity of the outputs for earlier
    data (arXiv 1711.09601)."""

    name: Literal["mas"]
    of_each_pair: ClassVar[bool] = True
    strength: float = Field(1.0, gt=0, description="Weight of the penalty.")
    decay: float = Field(
        1.0,
        ge=0,
        le=1,
        description="At each stage, multiplies the sensitivities of all earlier stages.",
    )
    samples: int = Field(
        512,
        ge=1,
        description="Samples of the chunk to measure, at most all of them. Each takes a backward "
        "pass.",
    )

    def begin(self, stage_context: StageContext, stage_inputs: StageInputs) -> StageHooks:
        from fomo_dagster.methods.preservation.mas.hooks import MASHooks

        return MASHooks(
            stage_context,
            stage_inputs,
            strength=self.strength,
            decay=self.decay,
            samples=self.samples,
        )
