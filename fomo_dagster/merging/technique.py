"""What a merging technique is: its parameters, and the rule that makes one number of several.

A technique is one small file: a declaration (its parameters) whose `plan` says how each tensor is
merged. Techniques know nothing of files. They get pieces of tensors, and may first scan a whole
tensor or model for what they need to know.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from fomo_dagster.data.declarations import Declaration
from fomo_dagster.merging.pieces import Array, Plan

if TYPE_CHECKING:
    from fomo_dagster.merging.checkpoints import Checkpoints


class Repair(Declaration):
    """The correction of activations after a merge (`repair.py`)."""

    samples: int = Field(
        256, ge=2, description="Size of the calibration set; all of it is in memory at once."
    )
    seed: int = Field(
        0, ge=0, description="Seed that draws the calibration set from the stage's new samples."
    )


class Technique(Declaration):
    """A technique with its parameters. The field `technique` is its name."""

    technique: str
    repair: Repair | None = Field(
        None,
        description="After the merge, give the MLPs' pre-activations the mean and deviation that "
        "they have on average in the models (REPAIR); null: do not.",
    )
    needs_base: ClassVar[bool] = False
    """Whether it is a function of θ₀ too."""
    weighted_version: ClassVar[int] = 1
    """Raised when the numbers of a merge with weights change, and those of no other."""
    statistics: ClassVar[str] = ""
    """The kind of statistics of each model's data that it is a function of, too: a file for each.
    Empty: none."""
    statistics_as_models: ClassVar[bool] = False
    """Whether these have the model's tensors. Its plan then finds them behind the models, as if
    they were twice as many; else they are `Checkpoints.beside`."""
    by_rows: ClassVar[bool] = False
    """Whether its rules want whole rows (see `Checkpoints.row`) in every piece."""
    by_matrices: ClassVar[bool] = False
    """Whether it computes on whole matrices, for which PyTorch is held to one thread each."""

    def why_unsupported(self, models: int) -> str | None:
        """Why it cannot merge that many models; None if it can."""
        return None

    @property
    def is_weighted(self) -> bool:
        """Whether the models have weights that `weighted_version` applies to."""
        return False

    def for_stage(self, stage: int) -> Technique:
        """The same technique with the stage's own random draws, if it draws any.

        A merge that a later one continues draws anew each time. With the same draws it would drop,
        or keep, the same parameters of earlier merges at every stage.
        """
        return self

    def shares(self, models: int) -> tuple[float, ...]:
        """How much each model counts when models are averaged; the shares add up to 1."""
        return (1 / models,) * models

    @abstractmethod
    def plan(self, checkpoints: Checkpoints) -> Plan:
        """Tensor's name → the rule for its pieces, or what merges it as a whole.

        What is computed here is computed once; the returned function is called once for each
        tensor, while threads may still work by the rule for the one before. Both may read what they
        need (`Checkpoints.over_pieces`). Raises `InputError` for parameters that do not suit these
        checkpoints.
        """


def as_shares(coefficients: Sequence[float]) -> tuple[float, ...] | None:
    """Coefficients over their sum; None if they are no shares: one is negative, or all are 0."""
    total = math.fsum(coefficients)
    if min(coefficients, default=0) < 0 or total == 0:
        return None
    return tuple(coefficient / total for coefficient in coefficients)


def weighted_sum(numbers: Array, coefficients: Array | tuple[float, ...]) -> Array:
    """Σ_k c_k · numbers_k of (K, n), added up in the order of the models, in the memory of the
    first."""
    for coefficient, row in zip(coefficients, numbers, strict=True):
        row *= coefficient
    total: Array = numbers[0]
    for row in numbers[1:]:
        total += row
    return total
