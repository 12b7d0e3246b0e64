"""Distillation from an earlier model: LwF on new samples, ZSCL on pretraining samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from fomo_dagster.methods.preservation.declaration import Preservation

if TYPE_CHECKING:
    from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs


class _Distilled(Preservation):
    """Also learns from an earlier model."""

    of_likelihood: ClassVar[bool] = True
    teacher: Literal["initial", "deployed"]
    strength: float = Field(1.0, gt=0, description="Multiplies the divergence from the teacher.")
    temperature: float = Field(
        2.0, gt=0, description="Divides the logits before they are compared."
    )

    @property
    def reference(self) -> Literal["initial", "deployed"]:
        return self.teacher


class LwF(_Distilled):
    """Learning without forgetting (arXiv 1606.09282): adds `strength` · the divergence from the
    teacher's softened similarities of the new images to the new texts."""

    name: Literal["lwf"]
    teacher: Literal["initial", "deployed"] = Field(
        "deployed", description="The weights deployed before the stage, or θ₀ at every stage."
    )

    @property
    def pools(self) -> tuple[Literal["update"]]:
        return ("update",)

    def begin(self, stage_context: StageContext, stage_inputs: StageInputs) -> StageHooks:
        from fomo_dagster.methods.preservation.distillation.hooks import LwFHooks

        return LwFHooks(
            stage_context, stage_inputs, strength=self.strength, temperature=self.temperature
        )


class ZSCL(_Distilled):
    """On the pretraining rows, in place of the contrastive loss (arXiv 2303.06628): `strength` ·
    the divergences from the teacher's softened similarities, of images to texts and of texts to
    images; and `l2` · ‖θ - θ_start‖²."""

    name: Literal["zscl"]
    teacher: Literal["initial", "deployed"] = Field(
        "initial", description="θ₀, or the weights deployed before the stage."
    )
    l2: float = Field(
        1.0,
        ge=0,
        description="Adds `l2 · ‖θ - θ*‖²`, where θ* are the weights that the stage starts from.",
    )

    @property
    def weights_themselves(self) -> bool:
        return self.l2 > 0

    @property
    def pools(self) -> tuple[Literal["update", "pretraining"], ...]:
        return ("update", "pretraining")

    def begin(self, stage_context: StageContext, stage_inputs: StageInputs) -> StageHooks:
        from fomo_dagster.methods.preservation.distillation.hooks import ZSCLHooks

        return ZSCLHooks(
            stage_context,
            stage_inputs,
            strength=self.strength,
            temperature=self.temperature,
            l2=self.l2,
        )
