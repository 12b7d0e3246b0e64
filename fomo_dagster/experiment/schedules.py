"""How the learning rate goes within a stage, as an experiment declares it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, Tag, computed_field, model_validator

from fomo_dagster.data.declarations import Declaration, at_default_left_out, chosen_by


def _is_a_share_or_whole(length: float) -> float:
    if length >= 1 and not length.is_integer():
        raise ValueError(
            f"{length:g} is neither a share of a stage's steps, below 1, nor a number of steps"
        )
    return length


Length: TypeAlias = Annotated[float, Field(ge=0), AfterValidator(_is_a_share_or_whole)]
"""Some of a stage's steps: below 1 a share of them, from 1 on their number."""


def steps_in(length: Length, steps: int) -> int:
    """How many of a stage's `steps` it is, a share rounded up; it may be more than there are."""
    if length >= 1:
        return int(length)
    return math.ceil(round(length * steps, 9))  # 0.07 · 100 is above 7 in binary


class Schedule(Declaration):
    """The learning rate of each step of a stage; the formulas are in `training/schedules.py`."""

    name: str

    def lengths(self, steps: int) -> Mapping[str, int]:
        """Its parts that follow each other within a stage of `steps` steps, and their steps."""
        return {}


class _WarmedUp(Schedule):
    warmup: Length = Field(
        0.1, description="The rate rises over these steps: a share of the stage's, or their number."
    )

    def lengths(self, steps: int) -> Mapping[str, int]:
        return {"warmup": steps_in(self.warmup, steps)}


class _CooledDown(_WarmedUp):
    cooldown: Length = Field(
        0.1, description="The rate falls over the last steps: a share, or their number."
    )

    def lengths(self, steps: int) -> Mapping[str, int]:
        return {**super().lengths(steps), "cooldown": steps_in(self.cooldown, steps)}


FinalFactor: TypeAlias = Annotated[float, Field(ge=0, le=1, description="The floor over the peak.")]


class Constant(_WarmedUp):
    """The peak, after a warm-up."""

    name: Literal["constant"]

    # What it had beside, which did nothing, and is in the digests of all that was trained with it.
    @computed_field  # type: ignore[prop-decorator]
    @property
    def final_factor(self) -> float:
        return 0.001


class Multistep(_WarmedUp):
    """The peak, and from each milestone on `factor` times what it was before."""

    name: Literal["multistep"]
    warmup: Length = Field(0.0, description="A share of the stage's steps, or their number.")
    milestones: tuple[Length, ...] = Field(
        min_length=1, description="Shares of the stage's steps, or numbers of steps, in order."
    )
    factor: float = Field(0.1, gt=0, le=1)


class CosineAnnealing(Schedule):
    """From the peak towards the floor along a cosine, without a warm-up."""

    name: Literal["cosine_annealing"]
    final_factor: FinalFactor = 0.001


class Cosine(_WarmedUp):
    """From the peak to the floor along a cosine, after a warm-up: the benchmark's."""

    name: Literal["cosine"] = "cosine"
    final_factor: FinalFactor = 0.001
    recovery: Literal["autoregressive", "dynamic", "continued", "recovered"] | None = (
        at_default_left_out(None, description="How stages go on from each other; null: not at all.")
    )
    stages: int | None = at_default_left_out(
        None,
        ge=1,
        description="Of continued and recovered: how many stages the one cosine is over.",
    )

    @model_validator(mode="after")
    def _has_its_horizon(self) -> Cosine:
        needs_it = self.recovery in ("continued", "recovered")
        if needs_it and self.stages is None:
            raise ValueError(
                f"recovery: {self.recovery} follows one cosine over all stages: give their number "
                "as stages"
            )
        if self.stages is not None and not needs_it:
            raise ValueError(
                "stages goes with recovery: continued or recovered, not with "
                f"{self.recovery or 'none'}"
            )
        return self


class Rsqrt(_CooledDown):
    """Towards the floor as the reciprocal of the step's square root, without an end that it has to
    know, and to 0 over the last steps (arXiv 2106.04560)."""

    name: Literal["rsqrt"]
    warmup: Length = Field(
        0.1, gt=0, description="A share of the stage's steps, or their number; the decay's unit."
    )
    final_factor: FinalFactor = 0.001
    recovery: Literal["autoregressive", "continued", "recovered", "recovered_released"] | None = (
        Field(None, description="How stages go on from each other; null: not at all.")
    )


class WarmupStableDecay(_CooledDown):
    """The peak, and to the floor over the last steps (arXiv 2404.06395)."""

    name: Literal["wsd"]
    final_factor: FinalFactor = 0.001
    shape: Literal["linear", "sqrt"] = Field(
        "linear",
        description="Of the cool-down; sqrt: 1 - √share, steep at first (arXiv 2405.18392).",
    )


AnySchedule: TypeAlias = Annotated[
    Annotated[Constant, Tag("constant")]
    | Annotated[Multistep, Tag("multistep")]
    | Annotated[CosineAnnealing, Tag("cosine_annealing")]
    | Annotated[Cosine, Tag("cosine")]
    | Annotated[Rsqrt, Tag("rsqrt")]
    | Annotated[WarmupStableDecay, Tag("wsd")],
    chosen_by("name", "cosine"),
]


def misfit(schedule: Schedule, steps: int) -> str | None:
    """Why the schedule does not fit into a stage of `steps` steps; None where it does."""
    lengths = schedule.lengths(steps)
    if sum(lengths.values()) > steps:
        parts = " and ".join(
            f"schedule.{name} of {getattr(schedule, name):g} ({length} steps)"
            for name, length in lengths.items()
            if length
        )
        return f"{parts} do not fit into a stage of {steps} steps: make them shorter"
    if isinstance(schedule, Multistep):
        starts = [steps_in(milestone, steps) for milestone in schedule.milestones]
        if sorted(starts) != starts or starts[-1] >= steps:
            return (
                f"schedule.milestones come to the steps {starts}, which must rise and be below the "
                f"stage's {steps}"
            )
    return None
