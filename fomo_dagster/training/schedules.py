"""The learning rate of each step, and that of each tower.

A schedule is a function of the stage, the step and how many steps a stage has, and of nothing else.
Formulas are those of FoMo-in-Flux (arXiv 2408.14471), with the step i = 0 .. S-1 of S, the peak L,
the floor m = L · final_factor, W steps of warm-up, C of cool-down, and t stages before this one,
which count as though they had had S, W and C, too. Where the stages recover, a stage warms up to a
base b below L, and the schedule goes on from there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from fomo_dagster.experiment.schedules import (
    Constant,
    Cosine,
    CosineAnnealing,
    Multistep,
    Rsqrt,
    Schedule,
    WarmupStableDecay,
    steps_in,
)
from fomo_dagster.experiment.training import TowerWarmup


def learning_rate(schedule: Schedule, peak: float, *, stage: int, step: int, steps: int) -> float:
    """The learning rate of a step.

    stage: counted from 1; θ₀'s own training, 0, is like a first one. step: i, from 0. steps: S,
    into which the schedule fits (`experiment.schedules.misfit`).
    """
    if not 0 <= step < steps:
        raise ValueError(f"step {step} is not one of {steps}")
    before = max(stage - 1, 0)
    match schedule:
        case Constant():
            return _warmed_up(schedule, peak, step, steps) or peak
        case Multistep(milestones=milestones, factor=factor):
            passed = sum(step >= steps_in(milestone, steps) for milestone in milestones)
            return (_warmed_up(schedule, peak, step, steps) or peak) * factor**passed
        case CosineAnnealing(final_factor=final_factor):
            return _along_cosine(peak, peak * final_factor, step / steps)
        case Cosine():
            return _cosine(schedule, peak, before, step, steps)
        case Rsqrt():
            return _rsqrt(schedule, peak, before, step, steps)
        case WarmupStableDecay():
            return _warmup_stable_decay(schedule, peak, step, steps)
    raise TypeError(f"{schedule!r} is no declared schedule")


def _warmed_up(schedule: Schedule, base: float, step: int, steps: int) -> float | None:
    """b (i+1) / W, which is b at the last step of the warm-up; None after it."""
    warmup = schedule.lengths(steps)["warmup"]
    return base * (step + 1) / warmup if step < warmup else None


def _along_cosine(peak: float, floor: float, share: float) -> float:
    """m + ½ (1 + cos(π · share)) (L-m): from L at share 0 to m at 1."""
    return floor + 0.5 * (1 + math.cos(math.pi * share)) * (peak - floor)


def _cosine(schedule: Cosine, peak: float, before: int, step: int, steps: int) -> float:
    """m + ½ (1 + cos(π (i-W+1) / (S-W))) (b-m) after the warm-up: m at the last step.

    b is L, or where the stages recover what one cosine over several stages, of S-W steps each, has
    come down to: over those up to this one after t (S-W) + 1 of them (autoregressive, dynamic), or
    over all `stages` after t (S-W) (continued, recovered). recovered stays on that one cosine
    after the warm-up, dynamic on one of all (t+1) S steps with one warm-up, whose share is of all
    these; the others begin one of their own. The released code has the first
    two; continued and recovered mean what they mean with rsqrt, whose curve needs no end.
    """
    floor = peak * schedule.final_factor
    decay = steps - schedule.lengths(steps)["warmup"]  # S-W
    base, over, done = peak, 1, 0  # b is exactly L at the first stage, whatever the recovery
    if schedule.recovery is not None and decay:
        grows = schedule.recovery in ("autoregressive", "dynamic")
        over = before + 1 if grows else schedule.stages or 1
        done = before * decay
        if before:
            base = _along_cosine(peak, floor, min(1.0, (done + grows) / (over * decay)))
    warming = _warmed_up(schedule, base, step, steps)
    if warming is not None:
        return warming
    since = step - (steps - decay) + 1  # i-W+1
    if schedule.recovery == "dynamic":
        stages = before + 1
        all_steps, of_each = stages * steps, schedule.warmup >= 1
        warmup = stages * int(schedule.warmup) if of_each else steps_in(schedule.warmup, all_steps)
        passed = before * steps + step - warmup + 1
        return _along_cosine(peak, floor, passed / (all_steps - warmup))
    if schedule.recovery == "recovered":
        return _along_cosine(peak, floor, min(1.0, (done + since) / (over * decay)))
    return _along_cosine(base, floor, since / decay)


def _rsqrt(schedule: Rsqrt, peak: float, before: int, step: int, steps: int) -> float:
    """m + √(W / i) (b-m) after the warm-up, times (S-1-i) / C over the cool-down: 0 at the end.

    Where the stages recover, b = m + v (L-m):

    - autoregressive: v = √((t+1) W / (t S + W)), where this stage's warm-up ends on one curve over
      the stages up to it, with all their steps of warm-up at its beginning;
    - continued: v = √(W / (W + t (S-C-W))), where the stage before stood when its cool-down began,
      on the curve that goes on from stage to stage without its warm-ups and cool-downs;
    - recovered: the same v, and this stage stays on that curve: √(W / (i + t (S-C-W)));
    - recovered_released: the same, but its warm-up leads to v = √(W / (2 t (S-C-W))) where
      t > 0, so that the rate jumps where it ends: the released code counts earlier stages twice.
    """
    floor = peak * schedule.final_factor
    lengths = schedule.lengths(steps)
    warmup, cooldown = lengths["warmup"], lengths["cooldown"]  # W, C
    earlier = before * (steps - cooldown - warmup)  # t (S-C-W)
    recovery = schedule.recovery
    share = {
        None: 1.0,
        "autoregressive": (before + 1) * warmup / (before * steps + warmup),
        "continued": warmup / (warmup + earlier),
        "recovered": warmup / (warmup + earlier),
        "recovered_released": warmup / (2 * earlier) if earlier else 1.0,
    }[recovery]
    base = floor + math.sqrt(share) * (peak - floor)
    warming = _warmed_up(schedule, base, step, steps)
    if warming is not None:
        return warming
    if recovery in ("recovered", "recovered_released"):
        rate = floor + math.sqrt(warmup / (step + earlier)) * (peak - floor)
    else:
        rate = floor + math.sqrt(warmup / step) * (base - floor)
    left = steps - 1 - step
    return rate * left / cooldown if left < cooldown else rate


def _warmup_stable_decay(schedule: WarmupStableDecay, peak: float, step: int, steps: int) -> float:
    """L after the warm-up; over the cool-down L - x (L-m) or L - √x (L-m), with
    x = (i-(S-C)+1) / C: m at the last step."""
    warming = _warmed_up(schedule, peak, step, steps)
    if warming is not None:
        return warming
    cooldown = schedule.lengths(steps)["cooldown"]
    cooled = step - (steps - cooldown) + 1
    if cooled <= 0:
        return peak
    share = cooled / cooldown
    fallen = share if schedule.shape == "linear" else math.sqrt(share)
    return peak - fallen * (peak - peak * schedule.final_factor)


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
