"""Methods as an experiment file says them: what is trained, and what is done beside training it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fomo_dagster.merging.over_time import MergingOverTime
from fomo_dagster.methods.averaging.declaration import AnyAverage
from fomo_dagster.methods.preservation.registry import AnyPreservation
from fomo_dagster.methods.trained_parameters.declaration import Train

Tower = Literal["image", "text"]


class Method(MergingOverTime):
    """What all methods have; each adds what it trains."""

    name: str
    preserve: AnyPreservation | None = Field(
        None, description="What keeps earlier abilities in addition to replay; null: nothing."
    )
    average: AnyAverage | None = Field(
        None,
        description="Average the weights over the steps of a stage and end the stage with the "
        "average; null: end it with the weights of its last step.",
    )

    @property
    def left_towers(self) -> frozenset[Tower]:
        """The towers of which it trains nothing, as far as the declaration tells."""
        return frozenset()

    @model_validator(mode="after")
    def _goes_on_with_what_is_carried(self) -> Method:
        if self.preserve is None or not self.preserve.carries:
            return self
        at = {"initial": "at θ₀", "live": "at what is live, whichever stage that is"}
        if self.start_from in at:
            raise ValueError(
                f"{self.preserve.name} is carried from stage to stage, but start_from: "
                f"{self.start_from} starts each stage {at[self.start_from]}: use trained or "
                "deployed"
            )
        return self

    @model_validator(mode="after")
    def _has_the_adapters_that_are_designed(self) -> Method:
        if self.preserve is None or not self.preserve.designs_lora:
            return self
        if (self.name, getattr(self, "adapters", None)) != ("lora", "merge_each_stage"):
            raise ValueError(
                f"{self.preserve.name} designs the LoRA adapters of each stage anew: use it with "
                "name: lora and adapters: merge_each_stage"
            )
        return self


class Finetune(Method):
    """Trains the model's weights, all or some."""

    name: Literal["finetune"] = "finetune"
    train: Train = Field(
        "all",
        description="Which parameters to train: all; one tower (locked_image, locked_text); "
        "layer_norms (LNFit); biases (BitFit); projections (linear probing); or globs "
        "over parameter names.",
    )

    @property
    def left_towers(self) -> frozenset[Tower]:
        left: dict[str, Tower] = {"locked_image": "image", "locked_text": "text"}
        train = self.train if isinstance(self.train, str) else ""
        return frozenset({left[train]}) if train in left else frozenset()
