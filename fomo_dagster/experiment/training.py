"""How weights are trained, as an experiment declares it: optimiser, schedule, budget, precision."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator, model_validator

from fomo_dagster.data.declarations import Declaration, at_default_left_out
from fomo_dagster.experiment.loss import AnyLoss, ClipLoss
from fomo_dagster.experiment.optimisers import AdamW, AnyOptimiser
from fomo_dagster.experiment.schedules import Schedule

OPENCLIP_MAX_LOGIT_SCALE = math.log(100)


class Budget(Declaration):
    """The length of a stage, in exactly one unit; samples count all pools together."""

    samples: int | None = Field(None, gt=0)
    steps: int | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0, description="Passes over the update pool.")

    @model_validator(mode="after")
    def _is_one_unit(self) -> Budget:
        given = [k for k in ("samples", "steps", "epochs") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of samples, steps, epochs must be given, not {given or 'none'}"
            )
        return self


class TrainingSettings(Declaration):
    """How weights are trained, at a stage or when θ₀ is made."""

    optimiser: AnyOptimiser = AdamW()
    schedule: Schedule = Schedule()
    batch_size: int = Field(512, ge=2, description="Samples of the contrastive batch, all pools.")
    budget: Budget = Budget(samples=727_040)
    loss: AnyLoss = at_default_left_out(ClipLoss())
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    max_logit_scale: float | None = Field(
        OPENCLIP_MAX_LOGIT_SCALE, description="Clamp on the log temperature; null: none."
    )
    crop_scale: tuple[float, float] = Field(
        (0.9, 1.0), description="Range of the area that the random resized crop keeps."
    )

    @field_validator("crop_scale")
    @classmethod
    def _is_a_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 1:
            raise ValueError("crop_scale needs 0 < low ≤ high ≤ 1")
        return value
