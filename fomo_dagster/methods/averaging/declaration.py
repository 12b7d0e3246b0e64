"""The declarations of averages of the weights over the steps of a stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from fomo_dagster.data.declarations import Declaration, one_of


class ExponentialAverage(Declaration):
    """An exponential moving average: earlier steps count less and less."""

    name: Literal["exponential"]
    decay: float = Field(
        0.999, ge=0, lt=1, description="Weight of the average so far at each update."
    )
    every: int = Field(1, ge=1, description="Update the average every so many steps.")


class UniformAverage(Declaration):
    """The mean of the stage's start and of every `every`-th step."""

    name: Literal["uniform"]
    every: int = Field(100, ge=1, description="Update the average every so many steps.")


AVERAGES = (ExponentialAverage, UniformAverage)

if TYPE_CHECKING:
    AnyAverage: TypeAlias = ExponentialAverage | UniformAverage
else:
    AnyAverage = one_of(AVERAGES, "name")
