"""Where a stage's anneal begins, for stages that start from the weights before it."""

from __future__ import annotations

from fomo_dagster.errors import InputError
from fomo_dagster.optimisation.schedules import Schedule


def steps_before_anneal(schedule: Schedule, steps: int) -> int:
    """How many of a stage's `steps` come before its anneal, at least one.

    Raises `InputError` if there is no anneal, or nothing before it.
    """
    if not schedule.anneal(steps):
        length = next((n for n in ("annealing", "cooldown") if hasattr(schedule, n)), None)
        there = "it has no anneal" if length is None else f"schedule.{length} is 0"
        way = "infinite, wsd or rsqrt" if length is None else f"a schedule.{length} above 0"
        raise InputError(
            f"method.start_from is unannealed, but schedule.name is {schedule.name}, and {there}: "
            f"take {way}, or start_from: trained"
        )
    before = steps - schedule.anneal(steps)
    if before < 1:
        raise InputError(
            f"method.start_from is unannealed, but the anneal of schedule.name {schedule.name} "
            f"takes all {steps} steps of a stage, so that the next one would start where this one "
            "does: make it shorter"
        )
    return before
