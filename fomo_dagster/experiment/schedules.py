"""How the learning rate goes within a stage, as an experiment declares it."""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from fomo_dagster.data.declarations import Declaration


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
    """Learning rate within a stage; it starts anew at each."""

    name: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the stage's steps.")
    final_factor: float = Field(0.001, ge=0, le=1, description="Last learning rate over the peak.")
