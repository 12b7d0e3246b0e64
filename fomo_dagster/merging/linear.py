"""Weighted means: WiSE-FT (arXiv 2109.01903) of two models, model soups (2203.05482) of many."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from fomo_dagster.merging.groups import by_group
from fomo_dagster.merging.pieces import Array, Piece, Rule
from fomo_dagster.merging.technique import Technique, as_shares, weighted_sum

if TYPE_CHECKING:
    from fomo_dagster.merging.checkpoints import Checkpoints


def _adds_up(coefficients: tuple[float, ...]) -> tuple[float, ...]:
    if not abs(math.fsum(coefficients) - 1) <= 1e-9:
        raise ValueError(f"the coefficients of a mean must add up to 1, not {list(coefficients)}")
    return coefficients


Shares = Annotated[tuple[float, ...], AfterValidator(_adds_up)]


class Interpolation(Technique):
    """`(1 - weight) · θ_1 + weight · θ_2` of an older and a newer model, for example
    `deployed_t = (1 - weight) · deployed_{t-1} + weight · trained_t`."""

    technique: Literal["interpolation"] = "interpolation"
    weight: float = Field(0.5, ge=0, le=1, description="Weight of the newer model.")
    group_weights: dict[str, Annotated[float, Field(ge=0, le=1)]] | None = Field(
        None,
        description="Overrides it for `image`, `text`, `logit_scale`, or a pattern of parameter "
        "names.",
    )

    def why_unsupported(self, models: int) -> str | None:
        return None if models == 2 else "it merges two models; weighted_mean takes any number"

    def shares(self, models: int) -> tuple[float, ...]:
        return (1 - self.weight, self.weight)

    def plan(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        weight_of = by_group(self.group_weights, self.weight, checkpoints.names)
        return lambda name: _mean((1 - weight_of(name), weight_of(name)))


class WeightedMean(Technique):
    """`Σ_k c_k · θ_k` over any number of models. The coefficients add up to 1."""

    technique: Literal["weighted_mean"] = "weighted_mean"
    coefficients: Shares | None = Field(
        None, description="One per model, oldest first; null: all equal."
    )
    group_coefficients: dict[str, Shares] | None = Field(
        None,
        description="Overrides it for `image`, `text`, `logit_scale`, or a pattern of parameter "
        "names.",
    )

    def why_unsupported(self, models: int) -> str | None:
        for given in (self.coefficients, *(self.group_coefficients or {}).values()):
            if given is not None and len(given) != models:
                return f"it has {len(given)} coefficients {list(given)}: give one for each model"
        return None

    def shares(self, models: int) -> tuple[float, ...]:
        return as_shares(self.coefficients or ()) or super().shares(models)

    def plan(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        default = self.coefficients or (1 / checkpoints.count,) * checkpoints.count
        coefficients_of = by_group(self.group_coefficients, default, checkpoints.names)
        return lambda name: _mean(coefficients_of(name))


def _mean(coefficients: tuple[float, ...]) -> Rule:
    """The sum is taken in float64 in the models' order. Equal models, or a coefficient of 1 beside
    zeros, give the weights back bit for bit."""

    def rule(piece: Piece) -> Array:
        return weighted_sum(piece.models, coefficients)

    return rule
