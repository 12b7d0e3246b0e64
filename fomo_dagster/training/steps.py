"""How many steps a budget buys: the one place that turns samples, steps or epochs into steps."""

from __future__ import annotations

import math
from collections.abc import Callable

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.training import Budget, TrainingSettings

_GUESSES = 4  # each as if all steps drew alike, which brings them close


def known_steps(settings: TrainingSettings) -> int:
    """The steps of a stage, if they are known before anything is made.

    Raises `InputError` if they depend on the samples of a chunk.
    """
    steps = settings.budget.known_steps(settings.batch_size)
    if steps is None:
        raise InputError(
            "the steps of a stage depend on how many samples its chunk has, which is "
            "not known before the stream is made: give a number with --steps"
        )
    return steps


def steps_of(
    budget: Budget, batch_size: int, update_size: int | None, update_batch_size: float
) -> int:
    """The steps of a stage, at least one.

    samples: ⌊samples / batch_size⌋, all pools counted together. epochs: enough steps to pass that
    often over the update pool of `update_size` samples, with `update_batch_size` of them a step,
    rounded up; None is an unknown size. See `steps_that_draw` for batches that change.

    Raises `InputError` if the budget does not pay for one step.
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
    if budget.epochs is None:
        raise InputError(
            "budget.mafs becomes steps by their cost, which is not counted here: say how many with "
            "--steps"
        )
    if update_size is None:
        raise InputError(
            f"budget.epochs is {budget.epochs:g}, but the number of samples of a "
            "streamed dataset is unknown: give the budget in samples or steps"
        )
    if update_size < 1 or update_batch_size < 1:
        raise InputError(
            f"budget.epochs is {budget.epochs:g}, but the update pool has {update_size} samples "
            f"and {update_batch_size:g} in a batch: give the budget in samples or steps"
        )
    return math.ceil(round(budget.epochs * update_size / update_batch_size, 9)) or 1


def steps_that_draw(samples: float, drawn: Callable[[int], int], *, near: int) -> int:
    """A number of steps, at least one, that draws so many samples while one step less does not.

    drawn: steps → samples, since the samples of a step can depend on the total. near: where the
    search starts.
    """
    steps, wanted = max(1, near), round(samples, 9)
    for _ in range(_GUESSES):
        steps = max(1, math.ceil(wanted * steps / max(1, drawn(steps))))
    while drawn(steps) < wanted:
        steps += 1
    while steps > 1 and drawn(steps - 1) >= wanted:
        steps -= 1
    return steps
