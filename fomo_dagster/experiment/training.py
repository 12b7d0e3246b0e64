"""How weights are trained, as an experiment declares it: optimiser, schedule, budget, precision."""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, Tag, field_validator, model_validator

from fomo_dagster.data.declarations import Declaration, chosen_by

OPENCLIP_MAX_LOGIT_SCALE = math.log(100)


class Optimiser(Declaration):
    """What turns gradients into steps; its state starts anew at each stage.

    Weight decay is decoupled (arXiv 1711.05101) and the gradient is clipped as a whole, with each.
    """

    name: str
    learning_rate: float = Field(gt=0, description="The schedule's peak.")
    weight_decay: float = Field(0.2, ge=0, description="Applied to every trained parameter.")
    clip_norm: float | None = Field(
        1.0, gt=0, description="Global gradient norm; null: no clipping."
    )


class _Adam(Optimiser):
    learning_rate: float = Field(1e-5, gt=0, description="The schedule's peak.")
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = Field(1e-8, gt=0)


class AdamW(_Adam):
    """arXiv 1711.05101, with the benchmark's values."""

    name: Literal["adamw"] = "adamw"


class LowRank(_Adam):
    """AdamW that holds a matrix's moments in `rank` dimensions of its shorter side: those of its
    gradient's largest singular values. All other parameters have AdamW itself."""

    rank: int = Field(
        8, ge=1, description="A matrix whose shorter side is not above it has AdamW itself."
    )
    update_gap: int = Field(200, ge=1, description="Steps until dimensions are chosen anew.")


class GaLore(LowRank):
    """arXiv 2403.03507: what lies outside of these dimensions is left out of the step."""

    name: Literal["galore_adamw"]
    scale: float = Field(2.0, gt=0, description="α, times the step of a matrix.")


class Fira(LowRank):
    """arXiv 2410.01623: what lies outside is scaled as AdamW scales what lies within; α is 1."""

    name: Literal["fira"]


class Sgd(Optimiser):
    """Stochastic gradient descent."""

    name: Literal["sgd"]
    momentum: float = Field(0.9, ge=0, lt=1)


class Lion(Optimiser):
    """arXiv 2302.06675: the sign of a mean of gradients."""

    name: Literal["lion"]
    betas: tuple[float, float] = Field(
        (0.9, 0.99), description="Of the mean whose sign is taken, and of the one that is kept."
    )


AnyOptimiser: TypeAlias = Annotated[
    Annotated[AdamW, Tag("adamw")]
    | Annotated[GaLore, Tag("galore_adamw")]
    | Annotated[Fira, Tag("fira")]
    | Annotated[Sgd, Tag("sgd")]
    | Annotated[Lion, Tag("lion")],
    chosen_by("name", "adamw"),
]


class Schedule(Declaration):
    """Learning rate within a stage; it starts anew at each."""

    name: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the stage's steps.")
    final_factor: float = Field(0.001, ge=0, le=1, description="Last learning rate over the peak.")


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
