"""Learning rate schedules: each one's declaration and formula.

A rate depends only on the stage, the step, and the number of steps in a stage. Formulas are those
of FoMo-in-Flux (arXiv 2408.14471): step i = 0 .. S-1 of S, peak L, floor m = L · final_factor, W
steps of warm-up, C of cool-down. t is the number of stages before this one, which count as if they
had S, W and C too. With a recovery, a stage warms up to a base b below L, and the schedule
continues from there.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, computed_field, model_validator

from fomo_dagster.data.declarations import Declaration, at_default_left_out, one_of


def _is_a_share_or_whole(length: float) -> float:
    if length >= 1 and not length.is_integer():
        raise ValueError(
            f"{length:g} is neither a share of a stage's steps, below 1, nor a number of steps"
        )
    return length


Length: TypeAlias = Annotated[float, Field(ge=0), AfterValidator(_is_a_share_or_whole)]
"""Some of a stage's steps: below 1 a share of them, from 1 on their number."""


def steps_in(length: Length, steps: int) -> int:
    """How many of a stage's `steps` it is, a share rounded up; it may be more than there are."""
    if length >= 1:
        return int(length)
    return math.ceil(round(length * steps, 9))  # 0.07 · 100 is above 7 in binary


def _along_cosine(peak: float, floor: float, share: float) -> float:
    """m + ½ (1 + cos(π · share)) (L-m): from L at share 0 to m at 1."""
    return floor + 0.5 * (1 + math.cos(math.pi * share)) * (peak - floor)


class Schedule(Declaration):
    """The learning rate of each step of a stage."""

    name: str

    def learning_rate(self, peak: float, *, stage: int, step: int, steps: int) -> float:
        """The learning rate of a step.

        stage: counted from 1; 0 is θ₀'s own training, which works like a first stage. step: i, from
        0. steps: S, into which the schedule must fit (`misfit`).
        """
        if not 0 <= step < steps:
            raise ValueError(f"step {step} is not one of {steps}")
        return self._rate(peak, max(stage - 1, 0), step, steps)

    @abstractmethod
    def _rate(self, peak: float, before: int, step: int, steps: int) -> float:
        """`learning_rate`, with t as `before`."""

    def misfit(self, steps: int) -> str | None:
        """Why the schedule does not fit into a stage of `steps` steps; None if it does."""
        lengths = self.lengths(steps)
        if sum(lengths.values()) <= steps:
            return None
        parts = " and ".join(
            f"schedule.{name} of {getattr(self, name):g} ({length} steps)"
            for name, length in lengths.items()
            if length
        )
        return f"{parts} do not fit into a stage of {steps} steps: make them shorter"

    def lengths(self, steps: int) -> Mapping[str, int]:
        """The schedule's parts in a stage of `steps` steps, in order, and the steps of each."""
        return {}

    def anneal(self, steps: int) -> int:
        """How many of a stage's last steps only settle the weights, so that training could go on
        from before them; 0: there are none apart from the others."""
        return 0


class _WarmedUp(Schedule):
    warmup: Length = Field(
        0.1,
        description="Steps over which the rate rises: below 1 a share of the stage's steps, "
        "otherwise their number.",
    )

    def lengths(self, steps: int) -> Mapping[str, int]:
        return {"warmup": steps_in(self.warmup, steps)}

    def _warmed_up(self, base: float, step: int, steps: int) -> float | None:
        """b (i+1) / W, which is b at the last step of the warm-up; None after it."""
        warmup = self.lengths(steps)["warmup"]
        return base * (step + 1) / warmup if step < warmup else None


class _CooledDown(_WarmedUp):
    cooldown: Length = Field(
        0.1,
        description="Last steps over which the rate falls: below 1 a share of the stage's steps, "
        "otherwise their number.",
    )

    def lengths(self, steps: int) -> Mapping[str, int]:
        return {**super().lengths(steps), "cooldown": steps_in(self.cooldown, steps)}

    def anneal(self, steps: int) -> int:
        return self.lengths(steps)["cooldown"]


FinalFactor: TypeAlias = Annotated[float, Field(ge=0, le=1, description="The floor over the peak.")]


class Constant(_WarmedUp):
    """The peak, after a warm-up."""

    name: Literal["constant"]

    # What it had beside, which did nothing, and is in the digests of all that was trained with it.
    @computed_field  # type: ignore[prop-decorator]
    @property
    def final_factor(self) -> float:
        return 0.001

    def _rate(self, peak: float, before: int, step: int, steps: int) -> float:
        return self._warmed_up(peak, step, steps) or peak


class Multistep(_WarmedUp):
    """The peak, multiplied by `factor` at each milestone."""

    name: Literal["multistep"]
    warmup: Length = Field(
        0.0,
        description="Steps over which the rate rises: below 1 a share of the stage's steps, "
        "otherwise their number.",
    )
    milestones: tuple[Length, ...] = Field(
        min_length=1,
        description="Places in ascending order: below 1 a share of the stage's steps, otherwise a "
        "number of steps.",
    )
    factor: float = Field(0.1, gt=0, le=1, description="Multiplies the rate at each milestone.")

    def _rate(self, peak: float, before: int, step: int, steps: int) -> float:
        passed = sum(step >= steps_in(milestone, steps) for milestone in self.milestones)
        return (self._warmed_up(peak, step, steps) or peak) * self.factor**passed

    def misfit(self, steps: int) -> str | None:
        misfit = super().misfit(steps)
        starts = [steps_in(milestone, steps) for milestone in self.milestones]
        if misfit is None and (sorted(starts) != starts or starts[-1] >= steps):
            return (
                f"schedule.milestones come to the steps {starts}, which must rise and be below the "
                f"stage's {steps}"
            )
        return misfit


class CosineAnnealing(Schedule):
    """From the peak down to the floor along a cosine, without a warm-up:
    m + ½ (1 + cos(π i/S)) (L-m). This is the benchmark's `cosine`."""

    name: Literal["cosine_annealing"]
    final_factor: FinalFactor = 0.001

    def _rate(self, peak: float, before: int, step: int, steps: int) -> float:
        return _along_cosine(peak, peak * self.final_factor, step / steps)


class Cosine(_WarmedUp):
    """A warm-up, L (i+1)/W, then from the peak down to the floor along a cosine:
    m + ½ (1 + cos(π (i-W+1)/(S-W))) (L-m). This is the benchmark's `cosine_with_linear_warmup`."""

    name: Literal["cosine"] = "cosine"
    final_factor: FinalFactor = 0.001
    recovery: Literal["autoregressive", "dynamic", "continued", "recovered"] | None = (
        at_default_left_out(
            None, description="How a stage continues from earlier ones; null: it starts over."
        )
    )
    stages: int | None = at_default_left_out(
        None,
        ge=1,
        description="For continued and recovered: the number of stages that the one cosine covers.",
    )

    @model_validator(mode="after")
    def _has_its_horizon(self) -> Cosine:
        needs_it = self.recovery in ("continued", "recovered")
        if needs_it and self.stages is None:
            raise ValueError(
                f"recovery: {self.recovery} follows one cosine over all stages: give their number "
                "as stages"
            )
        if self.stages is not None and not needs_it:
            raise ValueError(
                "stages goes with recovery: continued or recovered, not with "
                f"{self.recovery or 'none'}"
            )
        return self

    def _rate(self, peak: float, before: int, step: int, steps: int) -> float:
        """m + ½ (1 + cos(π (i-W+1) / (S-W))) (b-m) after the warm-up: m at the last step.

        b is L, or where the stages recover what one cosine over several stages, of S-W steps each,
        has come down to: over those up to this one after t (S-W) + 1 of them (autoregressive,
        dynamic), or over all `stages` after t (S-W) (continued, recovered). recovered stays on that
        one cosine after the warm-up, dynamic on one of all (t+1) S steps with one warm-up, whose
        share is of all these; the others begin one of their own. The released code has the first
        two; continued and recovered mean what they mean with rsqrt, whose curve needs no end.
        """
        floor = peak * self.final_factor
        decay = steps - self.lengths(steps)["warmup"]  # S-W
        base, over, done = peak, 1, 0  # b is exactly L at the first stage, whatever the recovery
        if self.recovery is not None and decay:
            grows = self.recovery in ("autoregressive", "dynamic")
            over = before + 1 if grows else self.stages or 1
            done = before * decay
            if before:
                base = _along_cosine(peak, floor, min(1.0, (done + grows) / (over * decay)))
        warming = self._warmed_up(base, step, steps)
        if warming is not None:
            return warming
        since = step - (steps - decay) + 1  # i-W+1
        if self.recovery == "dynamic":
            stages = before + 1
            all_steps, of_each = stages * steps, self.warmup >= 1
            warmup = stages * int(self.warmup) if of_each else steps_in(self.warmup, all_steps)
            passed = before * steps + step - warmup + 1
            return _along_cosine(peak, floor, passed / (all_steps - warmup))
        if self.recovery == "recovered":
            return _along_cosine(peak, floor, min(1.0, (done + since) / (over * decay)))
        return _along_cosine(base, floor, since / decay)


class Rsqrt(_CooledDown):
    """A warm-up, then m + √(W/i) (L-m): down towards the floor with the reciprocal square root of
    the step. Over the last steps it is multiplied by (S-1-i)/C, down to 0 (arXiv 2106.04560).

    It does not need to know when training ends. W may not be 0: it is the unit of the decay.
    """

    name: Literal["rsqrt"]
    warmup: Length = Field(
        0.1,
        gt=0,
        description="Steps over which the rate rises, and the unit of the decay: below 1 a share "
        "of the stage's steps, otherwise their number.",
    )
    final_factor: FinalFactor = 0.001
    recovery: Literal["autoregressive", "continued", "recovered", "recovered_released"] | None = (
        Field(None, description="How a stage continues from earlier ones; null: it starts over.")
    )

    def _rate(self, peak: float, before: int, step: int, steps: int) -> float:
        """m + √(W / i) (b-m) after the warm-up, times (S-1-i) / C over the cool-down: 0 at the end.

        Where the stages recover, b = m + v (L-m):

        - autoregressive: v = √((t+1) W / (t S + W)), where this stage's warm-up ends on one curve
          over the stages up to it, with all their steps of warm-up at its beginning;
        - continued: v = √(W / (W + t (S-C-W))), where the stage before stood when its cool-down
          began, on one curve through all stages without their warm-ups and cool-downs;
        - recovered: the same v, and this stage stays on that curve: √(W / (i + t (S-C-W)));
        - recovered_released: the same, but its warm-up leads to v = √(W / (2 t (S-C-W))) where t >
          0, so that the rate jumps where it ends: the released code counts earlier stages twice.
        """
        floor = peak * self.final_factor
        lengths = self.lengths(steps)
        warmup, cooldown = lengths["warmup"], lengths["cooldown"]  # W, C
        earlier = before * (steps - cooldown - warmup)  # t (S-C-W)
        recovery = self.recovery
        share = {
            None: 1.0,
            "autoregressive": (before + 1) * warmup / (before * steps + warmup),
            "continued": warmup / (warmup + earlier),
            "recovered": warmup / (warmup + earlier),
            "recovered_released": warmup / (2 * earlier) if earlier else 1.0,
        }[recovery]
        base = floor + math.sqrt(share) * (peak - floor)
        warming = self._warmed_up(base, step, steps)
        if warming is not None:
            return warming
        if recovery in ("recovered", "recovered_released"):
            rate = floor + math.sqrt(warmup / (step + earlier)) * (peak - floor)
        else:
            rate = floor + math.sqrt(warmup / step) * (base - floor)
        left = steps - 1 - step
        return rate * left / cooldown if left < cooldown else rate


class WarmupStableDecay(_CooledDown):
    """The peak after a warm-up, then straight down to the floor over the last steps
    (arXiv 2404.06395), or as 1-√x with `shape: sqrt` (2405.18392)."""

    name: Literal["wsd"]
    final_factor: FinalFactor = 0.001
    shape: Literal["linear", "sqrt"] = Field(
        "linear",
        description="How the rate falls over the cool-down. sqrt: 1 - √share, steep at first "
        "(arXiv 2405.18392).",
    )
    recovery: Literal["continued"] | None = at_default_left_out(
        None,
        description="How a stage continues from earlier ones; null: it starts over. continued: "
        "only the first stage warms up.",
    )

    def _rate(self, peak: float, before: int, step: int, steps: int) -> float:
        """L after the warm-up; over the cool-down L - x (L-m) or L - √x (L-m), with
        x = (i-(S-C)+1) / C: m at the last step."""
        warming = self._warmed_up(peak, step, steps)
        if warming is not None and not (before and self.recovery):
            return warming
        cooldown = self.lengths(steps)["cooldown"]
        cooled = step - (steps - cooldown) + 1
        if cooled <= 0:
            return peak
        share = cooled / cooldown
        fallen = share if self.shape == "linear" else math.sqrt(share)
        return peak - fallen * (peak - peak * self.final_factor)


class Infinite(_WarmedUp):
    """A warm-up and a cosine down to a constant rate, both in the first stage alone; every stage
    stays at that rate and ends with an exponential anneal down to the floor (arXiv 2503.02844,
    after 2403.08763).

    `method.start_from: unannealed` has the next stage start from the weights before the anneal, so
    that all stages together are one run without an end, which each of them leaves for its anneal.
    """

    name: Literal["infinite"]
    cooldown: Length = Field(
        0.2,
        description="Steps after the warm-up, over which the rate falls to the constant one: below "
        "1 a share of the stage's steps, otherwise their number.",
    )
    constant_factor: float = Field(0.5, gt=0, le=1, description="The constant rate over the peak.")
    annealing: Length = Field(
        0.2,
        description="Last steps over which the rate falls to the floor: below 1 a share of the "
        "stage's steps, otherwise their number.",
    )
    final_factor: float = Field(
        0.001, gt=0, le=1, description="The floor over the peak; an exponential never comes to 0."
    )

    @model_validator(mode="after")
    def _falls(self) -> Infinite:
        if self.final_factor > self.constant_factor:
            raise ValueError(
                f"final_factor is {self.final_factor:g}, above constant_factor, which is "
                f"{self.constant_factor:g}: the anneal leads down, so lower it"
            )
        return self

    def lengths(self, steps: int) -> Mapping[str, int]:
        return {
            **super().lengths(steps),
            "cooldown": steps_in(self.cooldown, steps),
            "annealing": steps_in(self.annealing, steps),
        }

    def anneal(self, steps: int) -> int:
        return self.lengths(steps)["annealing"]

    def _rate(self, peak: float, before: int, step: int, steps: int) -> float:
        """With k = L · constant_factor and A steps of anneal: L (i+1)/W over the warm-up, then
        k + ½ (1 + cos(π (i-W+1)/C)) (L-k) over the cool-down, then k, and over the anneal
        k (m/k)^((i-(S-A)+1)/A). Stages after the first have k from their first step on."""
        constant, floor = peak * self.constant_factor, peak * self.final_factor
        warmup, cooldown, annealing = self.lengths(steps).values()  # W, C, A
        annealed = step - (steps - annealing) + 1
        if annealed > 0:
            return float(constant * (floor / constant) ** (annealed / annealing))
        if before or step >= warmup + cooldown:
            return constant
        warming = self._warmed_up(peak, step, steps)
        if warming is not None:
            return warming
        return _along_cosine(peak, constant, (step - warmup + 1) / cooldown)


SCHEDULES: tuple[type[Schedule], ...] = (
    Constant,
    Multistep,
    CosineAnnealing,
    Cosine,
    Rsqrt,
    WarmupStableDecay,
    Infinite,
)

if TYPE_CHECKING:
    AnySchedule: TypeAlias = Schedule
else:
    AnySchedule = one_of(SCHEDULES, "name", "cosine")
