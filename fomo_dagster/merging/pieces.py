"""Pieces of tensors, which merges process one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Magnitudes: TypeAlias = npt.NDArray[np.float32]
"""Never negative, nor −0; in the precision in which they are compared."""


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

    def into_vectors(self) -> Array:
        """As `vectors`, in the memory of `models`, which are no more: what is computed once stays
        in the cache."""
        assert self.base is not None
        return np.subtract(self.models, self.base, out=self.models)


Rule: TypeAlias = Callable[[Piece], Array]
"""(n,), the merged numbers of a piece, whose memory it may overwrite."""


@dataclass(frozen=True)
class Whole:
    """What merges a tensor as a whole, in place of a rule for its pieces."""

    make: Callable[[], Array]
    """→ (n,), the merged numbers of the flattened tensor; called once, in any thread."""


Plan: TypeAlias = Callable[[str], Rule | Whole]
"""Tensor's name → how it is merged."""


def magnitudes(vector: Array) -> Magnitudes:
    """Of the same shape."""
    return np.abs(vector.astype(np.float32))
