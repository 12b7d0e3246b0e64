"""Techniques that look at the angles between whole tensors: SLERP, Karcher mean, Model Stock.

Each merged tensor is a linear combination of the models' (and of θ₀'s), whose coefficients follow
from the inner products between them: one pass over a tensor finds those, a second one writes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from fomo_dagster.merging.groups import by_group
from fomo_dagster.merging.pieces import Array, Piece, Rule
from fomo_dagster.merging.technique import Technique, weighted_sum

if TYPE_CHECKING:
    from fomo_dagster.merging.checkpoints import Checkpoints

NEARLY_PARALLEL = 0.9995
"""Cosine from which on an interpolation on the sphere is one on its chord."""


def inner_products(checkpoints: Checkpoints, name: str, of: Callable[[Piece], Array]) -> Array:
    """(K, K): ⟨x_i, x_j⟩ over the whole tensor, of the (K, n) that `of` makes of a piece."""

    def products(piece: Piece) -> Array:
        rows = of(piece)
        found: Array = rows @ rows.T
        return found

    total = np.zeros((checkpoints.count, checkpoints.count))
    for found in checkpoints.over_pieces(name, products):
        total += found
    return total


def _cosines(products: Array) -> Array:
    """(K, K), of vectors that are not zero."""
    norms = np.sqrt(np.diag(products))
    cosines: Array = np.clip(products / np.outer(norms, norms), -1, 1)
    return cosines


class Slerp(Technique):
    """Spherical interpolation of two models, tensor by tensor (Shoemake 1985):
    `(sin((1 - weight) Ω) · θ_1 + sin(weight · Ω) · θ_2) / sin Ω`, where Ω is the angle between the
    tensors.

    Tensors that are nearly (anti)parallel, or zero, are interpolated linearly.
    """

    technique: Literal["slerp"] = "slerp"
    weight: float = Field(0.5, ge=0, le=1, description="Weight of the newer model, the second one.")
    group_weights: dict[str, Annotated[float, Field(ge=0, le=1)]] | None = Field(
        None,
        description="Overrides it for `image`, `text`, `logit_scale`, or a pattern of parameter "
        "names.",
    )

    def why_unsupported(self, models: int) -> str | None:
        return None if models == 2 else "it merges two models; karcher takes any number"

    def shares(self, models: int) -> tuple[float, ...]:
        return (1 - self.weight, self.weight)

    def plan(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        weight_of = by_group(self.group_weights, self.weight, checkpoints.names)

        def rule_of(name: str) -> Rule:
            products = inner_products(checkpoints, name, lambda piece: piece.models)
            coefficients = _on_the_arc(products, weight_of(name))
            return lambda piece: weighted_sum(piece.models, coefficients)

        return rule_of


def _on_the_arc(products: Array, weight: float) -> tuple[float, float]:
    if min(np.diag(products)) > 0:
        cosine = float(_cosines(products)[0, 1])
        if abs(cosine) <= NEARLY_PARALLEL:
            angle = math.acos(cosine)
            return (
                math.sin((1 - weight) * angle) / math.sin(angle),
                math.sin(weight * angle) / math.sin(angle),
            )
    return 1 - weight, weight


class Karcher(Technique):
    """The models' mean on the sphere, tensor by tensor: the direction m with the least
    `Σ_k angle(m, θ_k)²` (Karcher 1977), with the models' average length.

    Found by gradient descent, m ← exp_m(mean of log_m(θ_k / |θ_k|)), from the directions' mean.
    Tensors that are zero in some model, or whose directions cancel out, get the linear mean.
    """

    technique: Literal["karcher"] = "karcher"
    steps: int = Field(
        100, ge=1, description="Largest number of steps; it stops when nothing moves any more."
    )

    def plan(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        def rule_of(name: str) -> Rule:
            products = inner_products(checkpoints, name, lambda piece: piece.models)
            coefficients = _mean_on_the_sphere(products, self.steps)
            return lambda piece: weighted_sum(piece.models, coefficients)

        return rule_of


def _mean_on_the_sphere(products: Array, steps: int) -> Array:
    """(K,) coefficients of the models; all points of the descent are combinations of them."""
    norms = np.sqrt(np.diag(products))
    models = len(norms)
    linear = np.full(models, 1 / models)
    if min(norms) == 0:
        return linear
    cosines = _cosines(products)
    mean = np.full(models, 1 / models)  # of the directions
    for _ in range(steps):
        length = math.sqrt(max(0.0, float(mean @ cosines @ mean)))
        if length < 1e-9:
            return linear
        mean = mean / length
        along = np.clip(cosines @ mean, -1, 1)
        angles = np.arccos(along)
        if max(angles) > math.pi - 1e-6:  # opposite directions have no one shortest way
            return linear
        # log_m(x) = angle / sin(angle) · (x − cos(angle) · m); for x = m it is zero.
        ways = np.where(angles > 1e-8, angles / np.maximum(np.sin(angles), 1e-30), 1.0)
        step = (ways - mean * (ways @ along)) / models
        far = math.sqrt(max(0.0, float(step @ cosines @ step)))
        if far < 1e-12:
            break
        mean = math.cos(far) * mean + math.sin(far) / far * step
    coefficients: Array = mean * norms.mean() / norms
    return coefficients


class ModelStock(Technique):
    """Moves towards the centre of the fine-tuned models, as far as their angles say, tensor by
    tensor: `t · mean_k θ_k + (1 - t) · θ₀`, `t = K cos ω / ((K - 1) cos ω + 1)` (arXiv 2403.19522).
    cos ω is the mean of the cosines between every two task vectors.

    Beyond the paper: a model that did not change a tensor says nothing about the centre and is left
    out for it. A tensor that only one model changed is taken from that model. Task vectors that are
    on average more than a right angle apart (cos ω < 0) give θ₀.
    """

    technique: Literal["model_stock"] = "model_stock"
    needs_base: ClassVar[bool] = True

    def plan(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        def rule_of(name: str) -> Rule:
            shares = _stock(inner_products(checkpoints, name, Piece.into_vectors))
            rest = 1 - float(shares.sum())

            def rule(piece: Piece) -> Array:
                assert piece.base is not None
                merged = weighted_sum(piece.models, shares)
                merged += rest * piece.base
                return merged

            return rule

        return rule_of


def _stock(products: Array) -> Array:
    """(K,) shares of the models; the rest is θ₀'s."""
    changed = np.flatnonzero(np.diag(products) > 0)
    models = len(changed)
    shares = np.zeros(len(products))
    if models == 0:
        return shares
    if models == 1:
        share = 1.0
    else:
        cosines = _cosines(products[np.ix_(changed, changed)])
        cosine = max(0.0, (cosines.sum() - np.trace(cosines)) / (models * (models - 1)))
        share = models * cosine / ((models - 1) * cosine + 1)
    shares[changed] = share / models
    return shares
