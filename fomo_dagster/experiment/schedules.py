"""How the learning rate goes within a stage, as an experiment declares it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fomo_dagster.data.declarations import Declaration


class Schedule(Declaration):
    """Learning rate within a stage; it starts anew at each."""

    name: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the stage's steps.")
    final_factor: float = Field(0.001, ge=0, le=1, description="Last learning rate over the peak.")
