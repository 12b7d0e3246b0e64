"""GNSP: steps where the inputs of earlier data hardly reach (arXiv 2507.19839)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from fomo_dagster.methods.preservation.declaration import Preservation

if TYPE_CHECKING:
    from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs


class GNSP(Preservation):
    """Gradient null-space projection (arXiv 2507.19839): a linear layer's gradient becomes `G P`. P
    projects onto the directions that have less than `share` of what its inputs had on earlier data.
    """

    name: Literal["gnsp"]
    carries: ClassVar[bool] = True
    weights_themselves: ClassVar[bool] = True
    share: float = Field(
        0.15,
        gt=0,
        lt=1,
        description="ρ: share of the inputs' second moment that the directions which stay free may "
        "have together. A larger one lets more be learnt and more be forgotten.",
    )
    hold_pretraining: bool = Field(
        True,
        description="Also hold what θ₀ was trained on, by the inputs of samples of the pretraining "
        "pool; false: the first stage is plain training.",
    )
    samples: int = Field(
        1024, ge=1, description="Samples whose inputs are measured, at most all of them."
    )
    batch_size: int = Field(
        16, ge=1, description="Samples in a forward pass of the measurement, which all count alike."
    )

    @property
    def pools(self) -> tuple[Literal["pretraining"], ...]:
        return ("pretraining",) if self.hold_pretraining else ()

    @property
    def batches(self) -> Mapping[str, int]:
        return {"batch_size": self.batch_size}

    def carried_shapes(self, module: Any) -> Mapping[str, tuple[int, ...]]:
        from fomo_dagster.methods.preservation.layer_inputs import projected_layers

        layers = projected_layers(module)
        return {name: (layer.in_features, layer.in_features) for name, layer in layers.items()}

    def begin(self, stage_context: StageContext, stage_inputs: StageInputs) -> StageHooks:
        from fomo_dagster.methods.preservation.gnsp.hooks import GNSPHooks

        return GNSPHooks(
            stage_context,
            stage_inputs,
            share=self.share,
            samples=self.samples,
            batch_size=self.batch_size,
            hold_pretraining=self.hold_pretraining,
        )
