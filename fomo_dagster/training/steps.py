"""How many steps a budget buys: the one door from samples, steps or epochs to steps."""

from __future__ import annotations

import math

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.training import Budget


def steps_of(
    budget: Budget, batch_size: int, update_size: int | None, update_batch_size: int
) -> int:
    """The steps of a stage, at least one.

    samples: ⌊samples / batch_size⌋, all pools counted together. epochs: so many that the update
    pool of `update_size` samples, `update_batch_size` of them a step, is passed over that often,
    rounded up; None is a size that is not known.

    Raises `InputError` where the budget does not pay for one step.
    """
    if budget.steps is not None:
        return budget.steps
    if budget.samples is not None:
        if budget.samples < batch_size:
            raise InputError(
                f"budget.samples is {budget.samples}, less than one batch of {batch_size}: "
                "raise it, or lower batch_size"
            )
        return budget.samples // batch_size
    assert budget.epochs is not None  # exactly one unit is given
    if update_size is None:
        raise InputError(
            f"budget.epochs is {budget.epochs:g}, but nobody knows how many samples a streamed "
            "dataset has: give the budget in samples or steps"
        )
    if update_size < 1 or update_batch_size < 1:
        raise InputError(
            f"budget.epochs is {budget.epochs:g}, but the update pool has {update_size} samples "
            f"and {update_batch_size} in a batch: give the budget in samples or steps"
        )
    return math.ceil(round(budget.epochs * update_size / update_batch_size, 9)) or 1
