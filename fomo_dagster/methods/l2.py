"""L2: weights stay close to those that the stage starts from, or to θ₀ (arXiv 1802.01483)."""

from __future__ import annotations

from fomo_dagster.experiment import preservation as declared
from fomo_dagster.methods.preservation import Beginning, Beside
from fomo_dagster.methods.weight_penalty import WeightPenalty, copies


class L2(WeightPenalty):
    """`strength / 2 · ‖θ - θ*‖²` over the trained parameters."""

    def __init__(self, settings: declared.L2, beginning: Beginning, beside: Beside) -> None:
        if settings.to == "start":
            anchors = copies(beginning.trained)
        else:
            assert beside.reference is not None
            of_reference = dict(beside.reference().module.named_parameters())
            anchors = copies({name: of_reference[name] for name in beginning.trained})
            anchors = {
                name: beginning.shards.part(name, anchor).to(beginning.device)
                for name, anchor in anchors.items()
            }
        super().__init__(beginning, settings.strength, anchors, None)
