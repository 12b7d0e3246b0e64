"""NuSLERP: interpolates two models on the sphere, whole tensors or row by row (mergekit)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from fomo_dagster.merging.gram import inner_products
from fomo_dagster.merging.groups import by_group
from fomo_dagster.merging.pieces import Array, Piece, Plan, Rule
from fomo_dagster.merging.technique import Technique, weighted_sum

if TYPE_CHECKING:
    from fomo_dagster.merging.checkpoints import Checkpoints

LEAST_NORM, LEAST_SINE = 1e-7, 1e-8
"""The least length that is told from none, and the sine below which vectors are parallel."""


class NuSlerp(Technique):
    """`(sin((1 - weight) Ω) · θ_1 + sin(weight · Ω) · θ_2) / sin Ω`, where Ω is the angle between
    the tensors, or between their rows (mergekit).

    It differs from SLERP for nearly parallel vectors: SLERP interpolates these linearly from a
    cosine of 0.9995 on, this below a sine of 1e-8. Zeros count as at right angles to everything. A
    row is what goes into one output, and a vector is one row.
    """

    technique: Literal["nuslerp"] = "nuslerp"
    by_rows: ClassVar[bool] = True
    weight: float = Field(0.5, ge=0, le=1, description="Weight of the newer model, the second one.")
    group_weights: dict[str, Annotated[float, Field(ge=0, le=1)]] | None = Field(
        None,
        description="Overrides it for `image`, `text`, `logit_scale`, or a pattern of parameter "
        "names.",
    )
    per: Literal["tensor", "row"] = Field("tensor", description="Between what the angles are.")

    def why_unsupported(self, models: int) -> str | None:
        return None if models == 2 else "it merges two models; multislerp takes any number"

    def shares(self, models: int) -> tuple[float, ...]:
        return (1 - self.weight, self.weight)

    def plan(self, checkpoints: Checkpoints) -> Plan:
        weight_of = by_group(self.group_weights, self.weight, checkpoints.names)

        def rule_of(name: str) -> Rule:
            weight = weight_of(name)
            if self.per == "row":
                row = checkpoints.row(name)
                return lambda piece: _by_rows(piece, row, weight)
            products = inner_products(checkpoints, name, lambda piece: piece.models)
            squares, inner = np.diag(products)[:, None], products[0, 1:]
            older, newer = _on_the_arc(squares, inner, weight)
            return lambda piece: weighted_sum(piece.models, (float(older[0]), float(newer[0])))

        return rule_of


def _by_rows(piece: Piece, row: int, weight: float) -> Array:
    older, newer = piece.models.reshape(2, -1, row)  # (rows, row) each
    squares = np.stack([(older * older).sum(axis=1), (newer * newer).sum(axis=1)])
    first, second = _on_the_arc(squares, (older * newer).sum(axis=1), weight)
    older *= first[:, None]
    newer *= second[:, None]
    older += newer
    return older.reshape(-1)


def _on_the_arc(squares: Array, products: Array, weight: float) -> tuple[Array, Array]:
    """(2, rows), (rows,) → what the older and the newer rows are multiplied by, (rows,) each."""
    older, newer = np.maximum(np.sqrt(squares), LEAST_NORM)
    angles = np.arccos(np.clip(products / (older * newer), -1, 1))
    sines = np.sin(angles)
    parallel = np.abs(sines) < LEAST_SINE
    sines[parallel] = 1
    return (
        np.where(parallel, 1 - weight, np.sin((1 - weight) * angles) / sines),
        np.where(parallel, weight, np.sin(weight * angles) / sines),
    )
