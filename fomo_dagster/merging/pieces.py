"""Pieces of tensors, which merges process one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Piece:
    """Consecutive numbers of one tensor, flattened, of all models."""

    name: str
    start: int
    """Of the first one in the flattened tensor; a multiple of 4."""
    models: Array
    """(K, n), oldest first."""
    base: Array | None
    """(n,) of θ₀, where it is given."""

    @property
    def vectors(self) -> Array:
        """(K, n), the task vectors τ_k = θ_k − θ₀ (arXiv 2212.04089)."""
        assert self.base is not None
        return self.models - self.base


Rule: TypeAlias = Callable[[Piece], Array]
"""(n,), the merged numbers of a piece; what is given is left as it is."""
