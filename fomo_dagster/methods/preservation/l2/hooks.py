"""L2: weights stay close to those that the stage starts from, or to θ₀ (arXiv 1802.01483)."""

from __future__ import annotations

from typing import Literal

from fomo_dagster.methods.preservation.hooks import StageContext, StageInputs
from fomo_dagster.methods.preservation.weight_penalty import WeightPenalty, copies


class L2Hooks(WeightPenalty):
    """`strength / 2 · ‖θ - θ*‖²` over the trained parameters."""

    def __init__(
        self,
        stage_context: StageContext,
        stage_inputs: StageInputs,
        *,
        strength: float,
        to: Literal["start", "initial"],
    ) -> None:
        if to == "start":
            anchors = copies(stage_context.trained)
        else:
            assert stage_inputs.reference is not None
            of_reference = dict(stage_inputs.reference().module.named_parameters())
            anchors = copies({name: of_reference[name] for name in stage_context.trained})
            anchors = {
                name: stage_context.shards.part(name, anchor).to(stage_context.device)
                for name, anchor in anchors.items()
            }
        super().__init__(stage_context, strength, anchors, None)
