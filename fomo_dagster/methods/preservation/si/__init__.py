"""SI: anchors the weights that lowered the loss of earlier data (arXiv 1703.04200)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from fomo_dagster.methods.preservation.declaration import ByImportance

if TYPE_CHECKING:
    from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs


class SI(ByImportance):
    """Adds `strength · Σ Ω (θ - θ*)²` to the loss. Ω measures how much each weight lowered the loss
    of earlier stages (arXiv 1703.04200)."""

    name: Literal["si"]
    carried_version: ClassVar[int] = 2  # 1 cut each stage's importances at 0, and not their sum
    strength: float = Field(0.5, gt=0, description="Weight of the penalty.")
    damping: float = Field(0.1, gt=0, description="ξ, added to the squared change of a weight.")

    def begin(self, stage_context: StageContext, stage_inputs: StageInputs) -> StageHooks:
        from fomo_dagster.methods.preservation.si.hooks import SIHooks

        return SIHooks(stage_context, stage_inputs, strength=self.strength, damping=self.damping)
