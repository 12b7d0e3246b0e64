"""Transfer between two models of any architectures, without forgetting (arXiv 2310.17653)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.methods.preservation.declaration import Preservation

if TYPE_CHECKING:
    from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs


class Transfer(Preservation):
    """Adds `strength` · the divergence of each image's softened similarities to the batch's texts,
    from those of another model where it knows the image better, else from those of the model at
    the stage's start (arXiv 2310.17653)."""

    name: Literal["transfer"]
    of_likelihood: ClassVar[bool] = True
    teacher: Backbone = Field(
        exclude=True,  # it is an asset of its own, whose identity is that of what depends on it
        description="Any OpenCLIP model; it may have its own image size and tokeniser.",
    )
    supervised: bool = Field(
        True,
        description="Which model knows an image better. true: the one that gives its own text the "
        "higher probability. false: the one with the higher top probability.",
    )
    strength: float = Field(1.0, gt=0, description="Multiplies the divergence from the teacher.")
    temperature: float = Field(
        2.0, gt=0, description="Divides the logits before they are compared."
    )

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
