"""What a technique of merging is: its parameters, and the rule that makes a number of several.

A technique is one small file: a declaration (its parameters) whose `plan` says how each tensor is
merged. Techniques know nothing of files: they are given pieces of tensors, and may go through all
of them beforehand for what they must know of a whole tensor or of a whole model.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from fomo_dagster.data.declarations import Declaration

if TYPE_CHECKING:
    from fomo_dagster.merging.checkpoints import Checkpoints

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


class Technique(Declaration):
    """A technique with its parameters; each has a field `technique` that is its name."""

    technique: str
    needs_base: ClassVar[bool] = False
    """Whether it is a function of θ₀ too."""
    by_rows: ClassVar[bool] = False
    """Whether its rules want whole rows (see `Checkpoints.row`) in every piece."""

    def refusal(self, models: int) -> str | None:
        """Why it cannot merge that many models, or None."""
        return None

    def at(self, stage: int) -> Technique:
        """The same with lots of the stage's own, where it draws any.

        A merge that a later one goes on from draws anew each time: with the same lots it would
        drop, or keep, the same parameters of what was merged before at every stage.
        """
        return self

    @abstractmethod
    def plan(self, checkpoints: Checkpoints) -> Callable[[str], Rule]:
        """Tensor's name → the rule for its pieces.

        What is computed here is computed once; the function is called once for each tensor. Both
        may read what they need (`Checkpoints.over_pieces`).
        Raises `InputError` for parameters that do not go with these checkpoints.
        """


def weighted_sum(numbers: Array, coefficients: Array | tuple[float, ...]) -> Array:
    """Σ_k c_k · numbers_k of (K, n), added up in the order of the models."""
    total: Array = coefficients[0] * numbers[0]
    for coefficient, row in zip(coefficients[1:], numbers[1:], strict=True):
        total += coefficient * row
    return total
