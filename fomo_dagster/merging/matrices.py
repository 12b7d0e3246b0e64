"""What techniques over matrices share: which parameters are matrices, and how they are decomposed.

A matrix is the weight of a linear layer, a projection, or the kernels of a convolution with one row
for each output: a patch embedding is (width, 3 · p · p). Tables of embeddings (tokens, positions),
vectors and scalars are none. Matrices are read whole, one model at a time, and merged in float64 by
PyTorch, one thread each, several at once.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from fomo_dagster.errors import InputError
from fomo_dagster.merging.pieces import Array, Plan, Rule, Whole
from fomo_dagster.merging.task_vectors import TaskVectorTechnique
from fomo_dagster.merging.technique import weighted_sum

if TYPE_CHECKING:
    from torch import Tensor

    from fomo_dagster.merging.checkpoints import Checkpoints

WEIGHT = re.compile(r"(.+\.)?(\w*weight|\w*proj|\w*projection)")
"""The names of OpenCLIP, timm and Transformers; not those of tables (`positional_embedding`)."""
TABLE = re.compile(r"(.+\.)?\w*embed\w*\.weight")
"""Embeddings of tokens, positions and types; convolutions of such a name are matrices."""
STACKED = re.compile(r"(.+\.)?(in_proj_weight|qkv\.weight)")
"""Weights of attention: those of queries, keys and values, one below the other."""


class Matrix(NamedTuple):
    """Where a matrix lies in its flattened tensor."""

    start: int
    rows: int
    columns: int

    @property
    def stop(self) -> int:
        return self.start + self.rows * self.columns


def matrices_of(
    checkpoints: Checkpoints, technique: str, *, attention_apart: bool
) -> dict[str, list[Matrix]]:
    """The names of tensors that hold matrices → these.

    attention_apart: whether stacked queries, keys and values are three matrices, not one.
    Raises `InputError` if there is none.
    """
    found = {
        name: matrices
        for name in checkpoints.names
        if (matrices := _matrices(name, checkpoints.layout[name][1], attention_apart))
    }
    if not found:
        names = ", ".join(checkpoints.names[:3])
        raise InputError(
            f"{technique} merges the matrices of linear layers, and these checkpoints have none, "
            f"only {names or 'integers'}: give weights of a model, or take another technique"
        )
    return found


def _matrices(name: str, shape: tuple[int, ...], attention_apart: bool) -> list[Matrix]:
    if not WEIGHT.fullmatch(name) or len(shape) < 2:
        return []
    rows, columns = shape[0], math.prod(shape[1:])
    if min(rows, columns) < 2 or (len(shape) == 2 and TABLE.fullmatch(name)):
        return []
    parts = 3 if attention_apart and STACKED.fullmatch(name) and rows % 3 == 0 else 1
    part = rows // parts
    return [Matrix(i * part * columns, part, columns) for i in range(parts)]


class Decomposed(NamedTuple):
    """A = U diag(s) Vᵀ, only the q directions with s > 0 up to rounding, largest first."""

    left: Tensor
    """U, (m, q)."""
    values: Tensor
    """s, (q,)."""
    right: Tensor
    """Vᵀ, (q, n)."""


def decomposed(matrix: Tensor) -> Decomposed:
    """The singular value decomposition of (m, n).

    What a matrix lacks has no direction: LAPACK would name any that is left over. So a layer that a
    model did not change has q = 0.
    """
    import torch

    if matrix.shape[0] < matrix.shape[1]:  # tall ones take half the time of wide ones
        left, values, right = decomposed(matrix.T.contiguous())
        return Decomposed(right.T.contiguous(), values, left.T.contiguous())
    if not matrix.any():
        rows, columns = matrix.shape
        return Decomposed(
            matrix.new_empty(rows, 0), matrix.new_empty(0), matrix.new_empty(0, columns)
        )
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    least = float(values[0]) * max(matrix.shape) * torch.finfo(matrix.dtype).eps
    rank = int((values > least).sum())
    return Decomposed(
        left[:, :rank].contiguous(), values[:rank].contiguous(), right[:rank].contiguous()
    )


def orthogonal(matrix: Tensor) -> Tensor:
    """(m, n): U Vᵀ of its decomposition, the nearest with orthonormal rows or columns."""
    left, _, right = decomposed(matrix)
    return left @ right


@dataclass(frozen=True)
class Changes:
    """c_k τ_k of one matrix, each read when it is asked for."""

    checkpoints: Checkpoints
    name: str
    matrix: Matrix
    coefficients: Array

    @property
    def count(self) -> int:
        return len(self.coefficients)

    @property
    def rank(self) -> int:
        """The least of rows and columns, r."""
        return min(self.matrix.rows, self.matrix.columns)

    def of(self, model: int) -> Tensor:
        """(rows, columns), float64."""
        start, stop = self.matrix.start, self.matrix.stop
        piece = self.checkpoints.whole(self.name, model, start, stop)
        return float(self.coefficients[model]) * as_matrix(piece.into_vectors()[0], self.matrix)

    def total(self) -> Tensor:
        """Σ_k c_k τ_k."""
        total = self.of(0)
        for model in range(1, self.count):
            total += self.of(model)
        return total


def as_matrix(numbers: Array, matrix: Matrix) -> Tensor:
    """In memory of its own, which PyTorch aligns: last digits may depend on that, too."""
    import torch

    return torch.from_numpy(numbers).clone().reshape(matrix.rows, matrix.columns)


class MatrixTechnique(TaskVectorTechnique):
    """f merges matrices as a whole, and is the mean (1/K) Σ c_k τ_k of all other parameters."""

    by_matrices: ClassVar[bool] = True
    attention_apart: ClassVar[bool] = False
    """Whether the stacked queries, keys and values of attention are three matrices."""

    @abstractmethod
    def merge_matrix(self, changes: Changes) -> Tensor:
        """f of one matrix, (rows, columns)."""

    def joint(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        shares = self.weights(checkpoints.count) / checkpoints.count
        return lambda name: lambda piece: weighted_sum(piece.into_vectors(), shares)

    def plan(self, checkpoints: Checkpoints) -> Plan:
        matrices = matrices_of(checkpoints, self.technique, attention_apart=self.attention_apart)
        scale_of, others = self.scales(checkpoints), super().plan(checkpoints)

        def rule_of(name: str) -> Rule | Whole:
            if name not in matrices:
                return others(name)
            scale = scale_of(name)
            return Whole(partial(self._merged, checkpoints, name, matrices[name], scale))

        return rule_of

    def _merged(
        self, checkpoints: Checkpoints, name: str, matrices: list[Matrix], scale: float
    ) -> Array:
        import torch

        coefficients = self.weights(checkpoints.count)
        merged = [
            self.merge_matrix(Changes(checkpoints, name, matrix, coefficients)).reshape(-1)
            for matrix in matrices
        ]
        total: Array = (scale * torch.cat(merged)).numpy()
        base = checkpoints.whole(name, 0, 0, checkpoints.size(name)).base
        assert base is not None
        total += base
        return total
