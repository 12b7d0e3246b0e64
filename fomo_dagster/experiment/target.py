"""A score to reach, as a comparison's file declares it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fomo_dagster.data.declarations import Declaration

ComparedMetric = Literal["knowledge_accumulation", "zero_shot_retention", "geometric_mean"]


class Target(Declaration):
    """A score to reach, in percent."""

    metric: ComparedMetric = Field("geometric_mean", description="Which score.")
    value: float | None = Field(
        None, description="Its value; null: that of the baseline at its last stage."
    )

    @property
    def identity(self) -> float | dict[str, Any]:
        """As a part of a recipe, where a GM has always been a number."""
        if self.metric == "geometric_mean" and self.value is not None:
            return self.value
        return self.model_dump()
