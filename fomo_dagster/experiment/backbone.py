"""Models as an experiment file says them: an architecture, and where its weights come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from fomo_dagster.data.declarations import Declaration, PretrainingPool
from fomo_dagster.experiment.loss import AnyLoss
from fomo_dagster.experiment.names import check_safe_name
from fomo_dagster.experiment.training import TrainingSettings


class PretrainingRecipe(TrainingSettings):
    """θ₀ trained here from random weights on a pretraining pool."""

    pool: PretrainingPool
    seed: int = 0

    @model_validator(mode="after")
    def _is_no_stage(self) -> PretrainingRecipe:
        if self.budget.mafs is not None:
            raise ValueError(
                "budget.mafs is spread over the stages of a stream, and pretraining has none: "
                "give its budget in samples, steps or epochs"
            )
        return self


class Backbone(Declaration):
    """An OpenCLIP architecture, and exactly one origin of its weights."""

    name: str
    architecture: str | dict[str, Any] = Field(
        description="The name of an OpenCLIP architecture, or a model configuration in its format."
    )
    pretrained: str | None = Field(None, description="An OpenCLIP pretrained tag.")
    weights: Path | None = Field(None, description="A local file in OpenCLIP's format.")
    pretraining: PretrainingRecipe | None = None

    @model_validator(mode="after")
    def _has_one_origin(self) -> Backbone:
        check_safe_name(self.name)
        given = [
            k for k in ("pretrained", "weights", "pretraining") if getattr(self, k) is not None
        ]
        if len(given) != 1:
            raise ValueError(
                "exactly one of pretrained, weights, pretraining must be given, "
                f"not {given or 'none'}"
            )
        if self.pretraining is not None:
            self.check_goes_with(self.pretraining.loss)
        return self

    def check_goes_with(self, loss: AnyLoss) -> None:
        """Raises `ValueError` where the loss needs what the configuration does not give; that of an
        architecture which is a name is not known here."""
        if loss.name != "siglip" or isinstance(self.architecture, str):
            return
        if self.architecture.get("init_logit_bias") is None:
            raise ValueError(
                f"loss.name is siglip, and the architecture of {self.name} has no init_logit_bias: "
                "give it one, -10 as SigLIP's"
            )
