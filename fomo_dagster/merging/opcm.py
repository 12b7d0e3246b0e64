"""OPCM: adds what is new of each model, without what the merge already has (arXiv 2501.09522)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from fomo_dagster.data.declarations import Declaration
from fomo_dagster.errors import DataError
from fomo_dagster.merging.matrices import Changes, Decomposed, Matrix, decomposed, matrices_of
from fomo_dagster.merging.pieces import Array, Piece, Plan, Rule, Whole
from fomo_dagster.merging.technique import Technique, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor

    from fomo_dagster.merging.checkpoints import Checkpoints

NOTE = "opcm"
"""The key of the state in a file's header."""


class State(Declaration):
    """What a merge needs to know of the one before it, besides its weights."""

    models: int = Field(ge=1)
    norm: float = Field(ge=0)
    """The mean of ‖τ_i‖ over these models."""
    divisor: float = Field(gt=0)
    """λ, by which their sum was divided."""


class Opcm(Technique):
    """`θ₀ + (λ_{t-1} Δ_{t-1} + P(τ_t)) / λ_t`, where Δ_{t-1} is the merge before it, less θ₀. P
    takes from each matrix of τ_t what lies along the directions of Δ_{t-1}; λ_t makes the whole as
    long as the τ are on average (arXiv 2501.09522).

    With Δ_{t-1} = U Σ Vᵀ, P sets to 0 the diagonal of Uᵀ τ_t V, and its first r rows and columns
    where they meet; r is how many singular values add up to at most `alpha` of all. The queries,
    keys and values of attention are a matrix each. P leaves other parameters as they are.
    λ_t = ‖λ_{t-1} Δ_{t-1} + P(τ_t)‖ / mean_{i ≤ t} ‖τ_i‖, over the whole model, both towers.

    It merges the models one after the other, and needs the last merge, θ₀ and the new model alone:
    t, λ and the mean are noted in the header of the merged file. A first model without such a note
    is one that was trained. Beyond the paper: directions with Σ = 0 take nothing away, as where no
    model before changed a layer.
    """

    technique: Literal["opcm"] = "opcm"
    needs_base: ClassVar[bool] = True
    by_matrices: ClassVar[bool] = True
    alpha: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the sum of singular values, whose directions are kept from the new "
        "model altogether; 1: all of them.",
    )

    @model_validator(mode="after")
    def _keeps_its_length(self) -> Opcm:
        if self.repair is not None:
            raise ValueError(
                "opcm goes on from the length of what it merged, which repair would change: leave "
                "out repair, or take another technique"
            )
        return self

    def plan(self, checkpoints: Checkpoints) -> Plan:
        matrices = matrices_of(checkpoints, self.technique, attention_apart=True)
        before = _state(checkpoints) or State(models=1, norm=_norm(checkpoints, 0), divisor=1)
        if checkpoints.count == 1:
            checkpoints.notes[NOTE] = before.model_dump_json()
            return lambda name: lambda piece: piece.models[0]
        new = [_norm(checkpoints, model) for model in range(1, checkpoints.count)]
        weights = (before.divisor, *[1.0] * len(new))
        sums, squares = self._sums(checkpoints, matrices, weights)
        for name in checkpoints.names:
            if name not in matrices:
                squares += checkpoints.over_pieces(name, lambda p: _square(_sum(p, weights)))
        length, models = math.sqrt(math.fsum(squares)), before.models + len(new)
        norm = math.fsum([before.models * before.norm, *new]) / models
        divisor = length / norm if min(length, norm) > 0 else 1.0
        state = State(models=models, norm=norm, divisor=divisor)
        checkpoints.notes[NOTE] = state.model_dump_json()

        def rule_of(name: str) -> Rule | Whole:
            if name in sums:
                return Whole(lambda: _over(_base(checkpoints, name), sums[name], divisor))
            return lambda piece: _over(piece.base, _sum(piece, weights), divisor)

        return rule_of

    def _sums(
        self,
        checkpoints: Checkpoints,
        matrices: Mapping[str, Sequence[Matrix]],
        weights: tuple[float, ...],
    ) -> tuple[dict[str, Array], list[float]]:
        """The tensors that hold matrices → (n,) what becomes of them but for λ_t, in a temporary
        file, as λ_t is known when all are; and the squares of their lengths."""
        places = [(name, matrix) for name, of_name in matrices.items() for matrix in of_name]
        squares = []
        file = checkpoints.temporary_file()
        tasks = (partial(self._sum_of, checkpoints, *place, weights) for place in places)
        for total in checkpoints.threads.in_order(tasks):
            file.write(total.data)
            squares.append(_square(total))
        file.flush()
        numbers = np.memmap(file, np.float64, mode="r")
        ends = np.cumsum([checkpoints.size(name) for name in matrices])
        return dict(zip(matrices, np.split(numbers, ends[:-1]), strict=True)), squares

    def _sum_of(
        self, checkpoints: Checkpoints, name: str, matrix: Matrix, weights: tuple[float, ...]
    ) -> Array:
        changes = Changes(checkpoints, name, matrix, np.array(weights))
        total = changes.of(0)
        for model in range(1, changes.count):
            total += without(changes.of(model), decomposed(total), self.alpha)
        flat: Array = total.reshape(-1).numpy()
        return flat


def without(change: Tensor, known: Decomposed, alpha: float) -> Tensor:
    """P of (m, n), by the decomposition of what is merged."""
    import torch

    left, values, right = known
    shared = int((values.cumsum(0) <= alpha * values.sum()).sum()) if alpha < 1 else len(values)
    within = left.T @ change @ right.T  # (q, q)
    along = torch.diag(within.diagonal())
    along[:shared, :shared] = within[:shared, :shared]
    return change - left @ along @ right


def _state(checkpoints: Checkpoints) -> State | None:
    """That of the first model; None if no merge by this technique made it."""
    note = checkpoints.notes_of(0).get(NOTE)
    if note is None:
        return None
    try:
        return State.model_validate_json(note)
    except ValidationError as error:
        raise DataError(
            f"the header of {checkpoints.label(0)} has a note of opcm that cannot be read, "
            f"{note[:80]!r}: merge it again from the models that were trained"
        ) from error


def _norm(checkpoints: Checkpoints, model: int) -> float:
    """‖τ‖ of one model."""

    def square(piece: Piece) -> float:
        return _square(piece.into_vectors()[0])

    return math.sqrt(
        math.fsum(
            found
            for name in checkpoints.names
            for found in checkpoints.over_pieces(name, square, model)
        )
    )


def _sum(piece: Piece, weights: tuple[float, ...]) -> Array:
    return weighted_sum(piece.into_vectors(), weights)


def _square(numbers: Array) -> float:
    return float((numbers * numbers).sum())


def _base(checkpoints: Checkpoints, name: str) -> Array | None:
    return checkpoints.whole(name, 0, 0, checkpoints.size(name)).base


def _over(base: Array | None, total: Array, divisor: float) -> Array:
    assert base is not None
    merged: Array = total / divisor
    merged += base
    return merged
