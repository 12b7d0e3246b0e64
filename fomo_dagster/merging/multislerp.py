"""Multi-SLERP: the weighted direction of many models, with their weighted length (mergekit)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from fomo_dagster.merging.gram import inner_products
from fomo_dagster.merging.linear import Shares
from fomo_dagster.merging.pieces import Plan, Rule
from fomo_dagster.merging.technique import Technique, as_shares, weighted_sum

if TYPE_CHECKING:
    from fomo_dagster.merging.checkpoints import Checkpoints

LEAST = 1e-8
"""The length below which the directions cancel out; mergekit's, as what it adds to norms."""


class MultiSlerp(Technique):
    """`(Σ_k c_k ‖θ_k‖) · m / ‖m‖` with the mean direction `m = Σ_k c_k θ_k / ‖θ_k‖`, tensor by
    tensor (Goddard 2025, as in mergekit). The coefficients add up to 1.

    mergekit goes on from m along the tangents there, which add up to 0. Where the directions cancel
    out, it takes the linear mean of two models and refuses more; here it is the mean of any number.
    """

    technique: Literal["multislerp"] = "multislerp"
    coefficients: Shares | None = Field(
        None, description="One per model, oldest first; null: all equal."
    )

    def why_unsupported(self, models: int) -> str | None:
        if self.coefficients is None or len(self.coefficients) == models:
            return None
        given = f"{len(self.coefficients)} coefficients {list(self.coefficients)}"
        return f"it has {given}: give one for each model"

    def shares(self, models: int) -> tuple[float, ...]:
        return as_shares(self.coefficients or ()) or super().shares(models)

    def plan(self, checkpoints: Checkpoints) -> Plan:
        weights = np.array(self.coefficients or (1 / checkpoints.count,) * checkpoints.count)

        def rule_of(name: str) -> Rule:
            if checkpoints.count == 1:
                return lambda piece: piece.models[0]
            products = inner_products(checkpoints, name, lambda piece: piece.models)
            norms = np.sqrt(np.diag(products))
            directions = weights / (norms + LEAST)  # the coefficients of m
            length = math.sqrt(max(0.0, float(directions @ products @ directions)))
            if length < LEAST:
                return lambda piece: weighted_sum(piece.models, weights)
            coefficients = directions / length * float(norms @ weights)
            return lambda piece: weighted_sum(piece.models, coefficients)

        return rule_of
