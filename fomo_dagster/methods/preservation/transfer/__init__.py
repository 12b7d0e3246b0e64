"""Transfer between two models of any architectures, without forgetting (arXiv 2310.17653)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.methods.preservation.declaration import Preservation

if TYPE_CHECKING:
    from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs


class Transfer(Preservation):
    """What another model knows, where it knows it better than the weights at the stage's start."""

    name: Literal["transfer"]
    of_likelihood: ClassVar[bool] = True
    teacher: Backbone = Field(
        exclude=True,  # it is an asset of its own, whose identity is that of what depends on it
        description="Any OpenCLIP model, with an image size and a tokeniser of its own.",
    )
    supervised: bool = Field(
        True,
        description="An image is learnt from the model that finds its text the more probable; "
        "false: from the one whose highest probability is the higher.",
    )
    strength: float = Field(1.0, gt=0)
    temperature: float = Field(2.0, gt=0, description="Divides the logits that are compared.")

    @property
    def reference(self) -> Backbone:
        return self.teacher

    def begin(self, stage_context: StageContext, stage_inputs: StageInputs) -> StageHooks:
        from fomo_dagster.methods.preservation.transfer.hooks import TransferHooks

        return TransferHooks(
            stage_context,
            stage_inputs,
            supervised=self.supervised,
            strength=self.strength,
            temperature=self.temperature,
        )
