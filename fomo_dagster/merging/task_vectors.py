"""What techniques over task vectors share, θ = θ₀ + s · f(τ_1, …, τ_K), and the simplest f.

τ_k = θ_k − θ₀ (task arithmetic, arXiv 2212.04089). A family is two choices, made by a class each:
what of every single task vector is kept (`sparsify`), and how the vectors become one (`join`).

What coefficients c_k do depends on f. A sum is `Σ c_k τ_k`: it grows with them. A mean or a choice
is divided by the |c_k| of the models that take part in a number, so that only their proportions
count and the result stays among its inputs, as mergekit's `normalize` has it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from fomo_dagster.merging.groups import by_group
from fomo_dagster.merging.lines import Lines
from fomo_dagster.merging.pieces import Array, Piece, Plan, Rule
from fomo_dagster.merging.technique import Technique, as_shares, weighted_sum

if TYPE_CHECKING:
    from fomo_dagster.merging.checkpoints import Checkpoints


class TaskVectorTechnique(Technique):
    """θ = θ₀ + s · λ · f(τ_1, …, τ_K; c): s the scale, λ LiNeS's factor of the depth."""

    needs_base: ClassVar[bool] = True

    coefficients: tuple[float, ...] | None = Field(
        None,
        description="c: one per model, oldest first; null: 1 for each. In means and choices only "
        "their proportions count.",
    )
    scale: float = Field(1.0, description="s: multiplies the merged task vector.")
    group_scales: dict[str, float] | None = Field(
        None,
        description="Overrides it for `image`, `text`, `logit_scale`, or a pattern of parameter "
        "names.",
    )
    lines: Lines | None = Field(
        None,
        description="Scale the merged task vector by depth (LiNeS); null: the same at every depth.",
    )

    def why_unsupported(self, models: int) -> str | None:
        if self.coefficients is not None and len(self.coefficients) != models:
            given = f"{len(self.coefficients)} coefficients {list(self.coefficients)}"
            return f"it has {given}: give one for each model"
        return None

    def shares(self, models: int) -> tuple[float, ...]:
        return as_shares(self.coefficients or ()) or super().shares(models)

    @property
    def is_weighted(self) -> bool:
        return self.coefficients is not None

    @abstractmethod
    def joint(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        """Tensor's name → f of a piece (n,), before it is scaled."""

    def weights(self, models: int) -> Array:
        """(K,), c."""
        return np.ones(models) if self.coefficients is None else np.array(self.coefficients)

    def scales(self, checkpoints: Checkpoints) -> Callable[[str], float]:
        """Tensor's name → s · λ."""
        scale_of = by_group(self.group_scales, self.scale, checkpoints.names)
        depth_of = self.lines.factors(checkpoints.names) if self.lines else lambda name: 1.0
        return lambda name: scale_of(name) * depth_of(name)

    def plan(self, checkpoints: Checkpoints) -> Plan:
        scale_of = self.scales(checkpoints)
        joint_of = self.joint(checkpoints)

        def rule_of(name: str) -> Rule:
            scale = scale_of(name)
            joint = joint_of(name)

            def rule(piece: Piece) -> Array:
                assert piece.base is not None
                merged: Array = scale * joint(piece)
                merged += piece.base
                return merged

            return rule

        return rule_of


class Elementwise(TaskVectorTechnique):
    """f is two choices: what of every single task vector is kept, and how the vectors become one,
    number by number."""

    def sparsify(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        """Tensor's name → what of the task vectors (K, n) of a piece is kept."""
        return lambda name: Piece.into_vectors

    @abstractmethod
    def join(self, vectors: Array, weights: Array) -> Array:
        """(K, n) task vectors, which it may overwrite, (K,) coefficients → (n,): one of several,
        number by number."""

    def joint(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        sparsified = self.sparsify(checkpoints)

        def rule_of(name: str) -> Rule:
            kept = sparsified(name)
            return lambda piece: self.join(kept(piece), self.weights(len(piece.models)))

        return rule_of


class Summing(Elementwise):
    """f is the sum, Σ c_k τ_k."""

    def join(self, vectors: Array, weights: Array) -> Array:
        return weighted_sum(vectors, weights)


class TaskArithmetic(Summing):
    """`θ₀ + s · Σ_k c_k τ_k` (arXiv 2212.04089). A negative coefficient subtracts a task."""

    technique: Literal["task_arithmetic"] = "task_arithmetic"
