"""RegMean: the linear layers whose outputs are closest to those of all models, each on what it was
trained on (arXiv 2212.09849)."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from fomo_dagster.errors import DataError
from fomo_dagster.merging.matrices import Matrix, as_matrix
from fomo_dagster.merging.pieces import Array, Plan, Rule, Whole
from fomo_dagster.merging.statistics import StatisticsTechnique
from fomo_dagster.merging.technique import weighted_sum

if TYPE_CHECKING:
    from torch import Tensor

    from fomo_dagster.merging.checkpoints import Checkpoints

RIDGE = 1e-10
"""Of the mean diagonal of Σ_k c_k G̃_k, added to it: inputs that no model had keep the mean."""


class RegMean(StatisticsTechnique):
    """`W = (Σ_k c_k W_k G̃_k) (Σ_k c_k G̃_k)⁻¹` of a linear layer's weights (m, n), where G̃_k is
    (n, n) `XᵀX` of the inputs X that model k has of what it was trained on, with `off_diagonal` of
    what is beside its diagonal (RegMean, arXiv 2212.09849). Other parameters are averaged. The
    coefficients add up to 1.

    The queries, keys and values of attention are a layer. Its output is none, since PyTorch does
    not let it be seen, nor are patch embeddings and the projections into the common space: they are
    averaged. G_k is a sum over the tokens of a sample, and a mean over samples.
    """

    technique: Literal["regmean"] = "regmean"
    off_diagonal: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Share that is kept of what is beside the diagonal (α); 0: each input by "
        "itself.",
    )
    statistics: ClassVar[str] = "inputs"
    by_matrices: ClassVar[bool] = True

    def plan(self, checkpoints: Checkpoints) -> Plan:
        coefficients = self.used(checkpoints.count)
        layers = _layers(checkpoints)

        def rule_of(name: str) -> Rule | Whole:
            if name in layers:
                return Whole(partial(self._merged, checkpoints, name, layers[name], coefficients))
            return lambda piece: weighted_sum(piece.models, coefficients)

        return rule_of

    def _merged(
        self, checkpoints: Checkpoints, name: str, matrix: Matrix, coefficients: tuple[float, ...]
    ) -> Array:
        """From the mean W̄, as `W̄ + (Σ_k c_k (W_k − W̄) G̃_k) (Σ_k c_k G̃_k)⁻¹`."""
        import torch

        def weights(model: int) -> Tensor:
            piece = checkpoints.whole(name, model, matrix.start, matrix.stop)
            return as_matrix(piece.models[0], matrix)  # (m, n)

        mean = torch.zeros(matrix.rows, matrix.columns, dtype=torch.float64)
        for model, coefficient in enumerate(coefficients):
            mean += coefficient * weights(model)
        total = torch.zeros(matrix.columns, matrix.columns, dtype=torch.float64)
        change = torch.zeros(matrix.columns, matrix.rows, dtype=torch.float64)
        for model, coefficient in enumerate(coefficients):
            moments = self._shrunk(checkpoints.beside.tensor(model, name))
            total += coefficient * moments
            change += coefficient * (moments @ (weights(model) - mean).T)
        ridge = RIDGE * float(total.diagonal().mean())
        if ridge:
            total.diagonal().add_(ridge)
            root, failed = torch.linalg.cholesky_ex(total)
            if failed:
                raise DataError(
                    f"{name}: the statistics of its inputs are no sums of squares, so that these "
                    "weights have no mean by them: make them again"
                )
            mean += torch.cholesky_solve(change, root).T
        return np.asarray(mean.reshape(-1).numpy(), np.float64)

    def _shrunk(self, moments: Tensor) -> Tensor:
        """G̃ of G, in float64."""
        found = moments.double()
        diagonal = found.diagonal().clone()
        found = found * self.off_diagonal
        found.diagonal().copy_(diagonal)
        return found


def _layers(checkpoints: Checkpoints) -> dict[str, Matrix]:
    """The tensors that there are statistics of. Raises `DataError` for those that do not go with
    the weights, or with each other."""
    beside = checkpoints.beside
    first = beside.layout(0)
    layers = {}
    for model in range(checkpoints.count):
        found = beside.layout(model)
        if found.keys() != first.keys():
            other = min(found.keys() ^ first.keys())
            raise DataError(
                f"{beside.labels[model]} does not go with "
                f"{beside.labels[0]}: only one of them has {other}; take statistics of "
                "one architecture"
            )
        for name, shape in found.items():
            rows, *others = checkpoints.layout.get(name, ("", ()))[1] or (0,)
            columns = math.prod(others)
            if shape != (columns, columns) or not others:
                raise DataError(
                    f"{beside.labels[model]} has {name} of shape {list(shape)}, which "
                    f"is not of the inputs of {checkpoints.label(0)}'s: take the statistics of "
                    "these models"
                )
            layers[name] = Matrix(0, rows, columns)
    return layers
