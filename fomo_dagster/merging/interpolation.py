"""Linear interpolation of checkpoints (model soups, arXiv 2203.05482; WiSE-FT, 2109.01903)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from fomo_dagster.errors import InputError
from fomo_dagster.merging.checkpoints import combine_checkpoints


def interpolate(inputs: Sequence[Path], coefficients: Sequence[float], output: Path) -> None:
    """Write θ = Σ_i c_i · θ_i, the sum taken in float64 in the order of the inputs, as fp32.

    θ_i are the safetensors files `inputs`, c_i their `coefficients`, which add up to 1; some may be
    negative. Equal inputs, or a coefficient of 1 beside zeros, give the weights back bit for bit.

    Raises `InputError` for coefficients that are not as many as the inputs or do not add up to 1,
    and `DataError` for inputs that do not go together or are not finite.
    """
    if not inputs or len(inputs) != len(coefficients):
        raise InputError(
            f"an interpolation needs a coefficient for each checkpoint; there are {len(inputs)} "
            f"checkpoints and {len(coefficients)} coefficients"
        )
    if not abs(math.fsum(coefficients) - 1) <= 1e-9:
        raise InputError(
            f"the coefficients of an interpolation must add up to 1, not {list(coefficients)}"
        )

    def weighted_sum(tensors: Sequence[Tensor]) -> Tensor:
        total = coefficients[0] * tensors[0]
        for coefficient, tensor in zip(coefficients[1:], tensors[1:], strict=True):
            total += coefficient * tensor
        return total

    combine_checkpoints(inputs, weighted_sum, output)
