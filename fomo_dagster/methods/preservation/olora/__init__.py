"""O-LoRA: new LoRA adapters read other directions than earlier ones (arXiv 2310.14152)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from fomo_dagster.methods.preservation.declaration import Preservation

if TYPE_CHECKING:
    from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs


class OLoRA(Preservation):
    """Orthogonal low-rank adaptation (arXiv 2310.14152): adds `strength · Σ_k ‖A A_kᵀ‖²` to the
    loss, over the A_k of earlier stages' adapters of the same layer.

    It goes with `name: lora` and `adapters: merge_each_stage`.
    """

    name: Literal["olora"]
    carries: ClassVar[bool] = True
    designs_lora: ClassVar[bool] = True
    of_carried: ClassVar[frozenset[str]] = frozenset({"strength", "begin_at"})
    strength: float = Field(0.5, ge=0, description="λ₁ of the paper, 0.5 there.")
    begin_at: Literal["random", "orthogonal"] = Field(
        "random",
        description="What A begins with: PEFT's random numbers, or these without what lies in the "
        "rows of earlier A_k, as long as before.",
    )

    def carried_shapes(self, module: Any) -> Mapping[str, tuple[int, ...]]:
        from fomo_dagster.methods.preservation.lora_layers import shapes_of_directions

        return shapes_of_directions(module)

    def begin(self, stage_context: StageContext, stage_inputs: StageInputs) -> StageHooks:
        from fomo_dagster.methods.preservation.olora.hooks import OLoRAHooks

        return OLoRAHooks(
            stage_context,
            stage_inputs,
            strength=self.strength,
            is_orthogonal_at_first=self.begin_at == "orthogonal",
        )
