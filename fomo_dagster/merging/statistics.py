"""Techniques that weigh models by statistics of what each was trained on."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from fomo_dagster.merging.linear import Shares
from fomo_dagster.merging.technique import Technique, as_shares


class StatisticsTechnique(Technique):
    """A technique whose merges take a file of statistics for each model. The experiment estimates
    them from the stage's chunk, at the weights that the stage trained."""

    coefficients: Shares | None = Field(
        None, description="One per model, oldest first; null: all equal."
    )
    samples: int = Field(
        2048,
        ge=1,
        description="Samples of a stage's chunk that its statistics are estimated from; at most "
        "all of them.",
    )
    batch_size: int = Field(64, ge=2, description="Batch size of the estimate.")

    estimate: ClassVar[frozenset[str]] = frozenset({"samples", "batch_size"})
    """Of its fields those that statistics depend on."""

    def why_unsupported(self, models: int) -> str | None:
        if self.coefficients is not None and len(self.coefficients) != models:
            given = f"it has {len(self.coefficients)} coefficients {list(self.coefficients)}"
            return f"{given}: give one for each model"
        return None

    def shares(self, models: int) -> tuple[float, ...]:
        return as_shares(self.coefficients or ()) or super().shares(models)

    def used(self, models: int) -> tuple[float, ...]:
        """The coefficients c_k of that many models."""
        return self.coefficients or (1 / models,) * models
