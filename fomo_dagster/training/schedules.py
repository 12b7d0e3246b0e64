"""The learning rate of each step of a stage: a linear warm-up, then constant or along a cosine.

A schedule knows nothing of the stages before; it starts anew at each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from fomo_dagster.experiment.schedules import Schedule, steps_in
from fomo_dagster.experiment.training import TowerWarmup


def learning_rate(schedule: Schedule, peak: float, *, stage: int, step: int, steps: int) -> float:
    """The learning rate of step i = `step` of S = `steps`, counted from 0, of a stage.

    With the peak L, the floor m = L · final_factor and W = ⌈warmup · S⌉ steps of warm-up:
    L (i+1) / W while i < W, then L (constant), or m + ½ (1 + cos(π (i-W+1) / (S-W))) (L-m), which
    ends at m (cosine: `cosine_with_linear_warmup` of FoMo-in-Flux, arXiv 2408.14471).
    """
    if not 0 <= step < steps:
        raise ValueError(f"step {step} is not one of {steps}")
    warmup = steps_in(schedule.warmup, steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule.name == "constant":
        return peak
    floor = peak * schedule.final_factor
    share = (step - warmup + 1) / (steps - warmup)
    return floor + 0.5 * (1 + math.cos(math.pi * share)) * (peak - floor)


def tower_factors(warmup: TowerWarmup | None, *, step: int, steps: int) -> Mapping[str, float]:
    """Tower → times what it takes the learning rate of a step, where a tower warms up: the other
    one has 0 over the W steps of it, then (i-W+1) / R over the R steps of the ramp, then 1."""
    if warmup is None:
        return {}
    waiting, ramp = steps_in(warmup.length, steps), steps_in(warmup.ramp, steps)
    other = {"text": "image", "image": "text"}[warmup.tower]
    if step < waiting:
        return {other: 0.0}
    return {other: min(1.0, (step - waiting + 1) / ramp) if ramp else 1.0}
