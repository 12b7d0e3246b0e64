"""MAS: weights that the outputs are sensitive to stay where they are (arXiv 1711.09601)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from fomo_dagster.methods.preservation.declaration import ByImportance

if TYPE_CHECKING:
    from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs


class MAS(ByImportance):
    """`strength · Σ Ω (θ - θ*)²` beside the loss, Ω how sensitive outputs of earlier data are."""

    name: Literal["mas"]
    of_each_pair: ClassVar[bool] = True
    strength: float = Field(1.0, gt=0)
    decay: float = Field(
        1.0, ge=0, le=1, description="Of the sensitivities of all stages before, each stage."
    )
    samples: int = Field(
        512, ge=1, description="Of the chunk, each with a backward pass; no more than it has."
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
