"""InfLoRA: new LoRA adapters read only what earlier data hardly had (arXiv 2404.00228)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from fomo_dagster.methods.preservation.declaration import Preservation

if TYPE_CHECKING:
    from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs


class InfLoRA(Preservation):
    """Interference-free LoRA (arXiv 2404.00228): each stage fixes the A of its adapters to the main
    directions of the new data's inputs outside those of earlier data, and trains B alone.

    It goes with `name: lora` and `adapters: merge_each_stage`.
    """

    name: Literal["inflora"]
    carries: ClassVar[bool] = True
    designs_lora: ClassVar[bool] = True
    threshold: float = Field(
        0.95,
        gt=0,
        lt=1,
        description="ε: share of the stage's inputs, squared, that the directions held from then "
        "on must cover.",
    )
    samples: int = Field(
        1024,
        ge=1,
        description="Samples of the chunk whose inputs are measured, at most all of them.",
    )
    batch_size: int = Field(64, ge=1, description="Samples in a forward pass of the measurement.")

    @property
    def batches(self) -> Mapping[str, int]:
        return {"batch_size": self.batch_size}

    def carried_shapes(self, module: Any) -> Mapping[str, tuple[int, ...]]:
        from fomo_dagster.methods.preservation.lora_layers import shapes_of_directions

        return shapes_of_directions(module)

    def begin(self, stage_context: StageContext, stage_inputs: StageInputs) -> StageHooks:
        from fomo_dagster.methods.preservation.inflora.hooks import InfLoRAHooks

        return InfLoRAHooks(
            stage_context,
            stage_inputs,
            threshold=self.threshold,
            samples=self.samples,
            batch_size=self.batch_size,
        )
