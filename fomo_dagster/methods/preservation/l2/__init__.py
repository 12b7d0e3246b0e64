"""L2: weights stay close to those at the stage's start, or to θ₀ (arXiv 1802.01483)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from fomo_dagster.methods.preservation.declaration import Preservation

if TYPE_CHECKING:
    from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs


class L2(Preservation):
    """Adds `strength / 2 · ‖θ - θ*‖²` over the trained parameters to the loss (arXiv 1802.01483).
    θ* are the weights at the start of the stage, or θ₀."""

    name: Literal["l2"]
    weights_themselves: ClassVar[bool] = True
    strength: float = Field(1.0, gt=0, description="Weight of the penalty.")
    to: Literal["start", "initial"] = Field(
        "start", description="θ*: the weights that the stage starts from, or θ₀."
    )

    @property
    def reference(self) -> Literal["initial"] | None:
        return "initial" if self.to == "initial" else None

    def begin(self, stage_context: StageContext, stage_inputs: StageInputs) -> StageHooks:
        from fomo_dagster.methods.preservation.l2.hooks import L2Hooks

        return L2Hooks(stage_context, stage_inputs, strength=self.strength, to=self.to)
