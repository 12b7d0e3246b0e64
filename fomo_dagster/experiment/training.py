"""How weights are trained, as an experiment declares it: optimiser, schedule, budget, precision."""

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
    """The length of a stage, in exactly one unit; samples count all pools together."""

    samples: int | None = Field(None, gt=0)
    steps: int | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0, description="Passes over the update pool.")
    mafs: float | None = at_default_left_out(
        None,
        gt=0,
        description="Memory-adjusted GFLOPs of all stages together, each of which takes as many "
        "steps: what a step costs, times its peak memory over full fine-tuning's.",
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
        """The steps of a stage as far as the declaration tells; None where they depend on the
        samples of its chunk."""
        if self.steps is not None:
            return self.steps
        return self.samples // batch_size if self.samples is not None else None


class RateScaling(Declaration):
    """`optimiser.learning_rate` is meant for another batch size than the training's."""

    reference_batch_size: int = Field(256, ge=1, description="The one that it is meant for.")
    rule: Literal["linear", "sqrt"] = Field(
        "linear",
        description="Times the ratio of the batch sizes (arXiv 1706.02677), or its square root.",
    )


class TowerWarmup(Declaration):
    """Trains one tower alone over the first steps of each stage; the learning rate of the other
    one is 0."""

    tower: Literal["text", "image"] = "text"
    length: Length = Field(description="Of the warm-up: a share of the stage's steps, or steps.")
    ramp: Length = Field(
        0.0, description="Then the other's learning rate rises to the schedule's: likewise."
    )

    def factors(self, step: int, steps: int) -> dict[str, float]:
        """Tower → times what it takes the learning rate of a step: the other tower 0 over the W
        steps of the warm-up, then (i-W+1) / R over the R steps of the ramp, then 1."""
        waiting, ramp = steps_in(self.length, steps), steps_in(self.ramp, steps)
        other = {"text": "image", "image": "text"}[self.tower]
        if step < waiting:
            return {other: 0.0}
        return {other: min(1.0, (step - waiting + 1) / ramp) if ramp else 1.0}


class TrainingSettings(Declaration):
    """How weights are trained, at a stage or when θ₀ is made."""

    optimiser: AnyOptimiser = AdamW()
    schedule: AnySchedule = Cosine()
    scale_learning_rate: RateScaling | None = at_default_left_out(
        None, description="By the batch size; null: not at all."
    )
    tower_warmup: TowerWarmup | None = at_default_left_out(
        None, description="One tower learns before the other; null: both from the first step on."
    )
    batch_size: int = Field(512, ge=2, description="Samples of the contrastive batch, all pools.")
    budget: Budget = Budget(samples=727_040)
    loss: AnyLoss = at_default_left_out(ClipLoss())
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = Field(
        "fp32", description="Of the towers; tf32: of all matrix products, on CUDA alone."
    )
    max_logit_scale: float | None = Field(
        OPENCLIP_MAX_LOGIT_SCALE, description="Clamp on the log temperature; null: none."
    )
    crop_scale: tuple[float, float] = Field(
        (0.9, 1.0), description="Range of the area that the random resized crop keeps."
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

    def misfit(self, steps: int) -> str | None:
        """What does not fit into a stage of `steps` steps, and why; None where all does."""
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
        """Tower → times what it takes the learning rate of a step, where that is not 1."""
        return {} if self.tower_warmup is None else self.tower_warmup.factors(step, steps)

    @property
    def peak_learning_rate(self) -> float:
        """What the schedule starts from, for this batch size."""
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
