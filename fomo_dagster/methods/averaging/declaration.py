"""The average of the weights over the steps of a stage, as an experiment file says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from fomo_dagster.data.declarations import Declaration, one_of


class ExponentialAverage(Declaration):
    """Earlier steps count less and less."""

    name: Literal["exponential"]
    decay: float = Field(
        0.999, ge=0, lt=1, description="What the average so far counts at each step that is taken."
    )
    every: int = Field(1, ge=1, description="Steps from one that is taken to the next.")


class UniformAverage(Declaration):
    """All steps that are taken count alike, and so does the stage's start."""

    name: Literal["uniform"]
    every: int = Field(100, ge=1, description="Steps from one that is taken to the next.")


AVERAGES = (ExponentialAverage, UniformAverage)

if TYPE_CHECKING:
    AnyAverage: TypeAlias = ExponentialAverage | UniformAverage
else:
    AnyAverage = one_of(AVERAGES, "name")
