"""The declaration of how a model looks at what each stage brings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fomo_dagster.data.declarations import Declaration


class Inspection(Declaration):
    """What a model thinks of the samples that each stage brings. Nothing is left out because of
    it."""

    weights: Literal["start", "initial"] = Field(
        "start",
        description="Whose eyes. start: the weights that the stage starts from. initial: θ₀.",
    )
    label_noise: bool = Field(
        False,
        description="Look for labels that are probably wrong, by confident learning on a linear "
        "probe of the stage's own samples. Needs the extra cleanlab.",
    )
    samples: int = Field(
        2000,
        ge=50,
        le=20_000,
        description="For drift: how many of the stage's samples, and as many of all earlier ones, "
        "are held against each other.",
    )
    permutations: int = Field(
        999, ge=99, description="For drift: how often they are mixed to see what chance does."
    )
