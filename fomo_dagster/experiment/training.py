"""How weights are trained: the declaration of optimiser, schedule, budget and precision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator, model_validator

from fomo_dagster.data.declarations import Declaration, at_default_left_out
from fomo_dagster.methods.loss.declaration import AnyLoss, ClipLoss
from fomo_dagster.optimisation.optimisers import AdamW, AnyOptimiser
from fomo_dagster.optimisation.schedules import AnySchedule, Cosine, Length, steps_in

OPENCLIP_MAX_LOGIT_SCALE = math.log(100)


class Budget(Declaration):
    """The length of a stage, in exactly one unit."""

    samples: int | None = Field(
        None, gt=0, description="Samples that a stage trains on, over all pools."
    )
    steps: int | None = Field(None, gt=0, description="Optimiser steps of a stage.")
    epochs: float | None = Field(None, gt=0, le=1e6, description="Passes over the update pool.")
    mafs: float | None = at_default_left_out(
        None,
        gt=0,
        description="Memory-adjusted GFLOPs of all stages together, divided equally: the GFLOPs "
        "of a step, times its peak memory relative to full fine-tuning.",
    )

    @model_validator(mode="after")
    def _is_one_unit(self) -> Budget:
        units = ("samples", "steps", "epochs", "mafs")
        given = [unit for unit in units if getattr(self, unit) is not None]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of {', '.join(units)} must be given, not {given or 'none'}"
            )
        return self

    def known_steps(self, batch_size: int) -> int | None:
        """The steps of a stage, if the declaration alone tells; None if they depend on the samples
        of its chunk."""
        if self.steps is not None:
            return self.steps
        return self.samples // batch_size if self.samples is not None else None


class RateScaling(Declaration):
    """Adapts `optimiser.learning_rate`, which was chosen for another batch size."""

    reference_batch_size: int = Field(
        256, ge=1, description="The batch size that the learning rate was chosen for."
    )
    rule: Literal["linear", "sqrt"] = Field(
        "linear",
        description="Multiply by the ratio of the batch sizes (arXiv 1706.02677), or by its "
        "square root.",
    )


class TowerWarmup(Declaration):
    """Trains one tower alone over the first steps of each stage. The other tower has a learning
    rate of 0."""

    tower: Literal["text", "image"] = Field("text", description="The tower that learns alone.")
    length: Length = Field(
        description="How long: below 1 a share of the stage's steps, otherwise their number."
    )
    ramp: Length = Field(
        0.0,
        description="How long the other tower's learning rate then rises to the schedule's: below "
        "1 a share of the stage's steps, otherwise their number.",
    )

    def factors(self, step: int, steps: int) -> dict[str, float]:
        """Tower → factor of its learning rate at a step: for the other tower 0 over the W steps of
        the warm-up, then (i-W+1) / R over the R steps of the ramp, then 1."""
        waiting, ramp = steps_in(self.length, steps), steps_in(self.ramp, steps)
        other = {"text": "image", "image": "text"}[self.tower]
        if step < waiting:
            return {other: 0.0}
        return {other: min(1.0, (step - waiting + 1) / ramp) if ramp else 1.0}


class TrainingSettings(Declaration):
    """How weights are trained, in a stage or when θ₀ is made."""

    optimiser: AnyOptimiser = Field(AdamW(), description="What turns gradients into steps.")
    schedule: AnySchedule = Field(Cosine(), description="The learning rate of each step.")
    scale_learning_rate: RateScaling | None = at_default_left_out(
        None, description="Scale the learning rate with the batch size; null: do not."
    )
    tower_warmup: TowerWarmup | None = at_default_left_out(
        None,
        description="Let one tower learn before the other; null: both learn from the first step "
        "on.",
    )
    batch_size: int = Field(
        512, ge=2, description="Samples of the contrastive batch, over all pools."
    )
    budget: Budget = Field(Budget(samples=727_040), description="How long a stage trains.")
    loss: AnyLoss = at_default_left_out(ClipLoss(), description="The contrastive loss.")
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = Field(
        "fp32",
        description="Precision of the towers. tf32 applies to all matrix products, and needs CUDA.",
    )
    max_logit_scale: float | None = Field(
        OPENCLIP_MAX_LOGIT_SCALE,
        description="Clamp the log temperature at this value; null: do not clamp.",
    )
    crop_scale: tuple[float, float] = Field(
        (0.9, 1.0),
        description="Range of the share of an image's area that the random resized crop keeps.",
    )

    @model_validator(mode="after")
    def _fits_into_a_stage(self) -> TrainingSettings:
        samples = self.budget.samples
        if samples is not None and samples < self.batch_size:
            raise ValueError(
                f"budget.samples is {samples}, less than one batch of {self.batch_size}: raise "
                "it, or lower batch_size"
            )
        steps = self.budget.known_steps(self.batch_size)
        problem = self.misfit(steps) if steps else None
        if problem is not None:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _averages_in_place_of_a_schedule(self) -> TrainingSettings:
        if self.optimiser.averages and self.schedule.name != "constant":
            raise ValueError(
                f"optimiser.name is {self.optimiser.name}, whose average takes the place of a "
                f"schedule's fall, and schedule.name is {self.schedule.name}: take "
                "schedule: {name: constant}"
            )
        return self

    def misfit(self, steps: int) -> str | None:
        """What does not fit into a stage of `steps` steps, and why; None if everything fits."""
        warmup = self.tower_warmup
        if warmup is not None:
            waiting, ramp = steps_in(warmup.length, steps), steps_in(warmup.ramp, steps)
            if waiting + ramp >= steps:
                return (
                    f"tower_warmup takes {waiting} steps and its ramp {ramp}, and a stage has "
                    f"{steps}: make them shorter"
                )
        return self.schedule.misfit(steps)

    def tower_factors(self, step: int, steps: int) -> Mapping[str, float]:
        """Tower → factor of its learning rate at a step, where that is not 1."""
        return {} if self.tower_warmup is None else self.tower_warmup.factors(step, steps)

    @property
    def peak_learning_rate(self) -> float:
        """The peak of the schedule for this batch size."""
        given = self.optimiser.learning_rate
        if self.scale_learning_rate is None:
            return given
        ratio = self.batch_size / self.scale_learning_rate.reference_batch_size
        return given * (ratio if self.scale_learning_rate.rule == "linear" else math.sqrt(ratio))

    @field_validator("crop_scale")
    @classmethod
    def _is_a_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 1:
            raise ValueError("crop_scale needs 0 < low ≤ high ≤ 1")
        return value
