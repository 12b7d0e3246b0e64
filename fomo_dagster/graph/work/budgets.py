"""Budgets in memory-adjusted FLOPs (MAFs), as FoMo-in-Flux counts them (arXiv 2408.14471).

The MAFs of a method are the GFLOPs of one of its steps times its peak memory over that of full
fine-tuning with AdamW at the same model, batch and precision. A total spread over T stages gives
each `round(total / MAFs / T)` steps. What a method does at the end of a stage is spread over the
stage's steps.

A step of a stage that has stages before it is counted: with a buffer, and with what they left. All
stages have as many steps, the first too. Features that a stage leaves of its samples count once for
each sample of the update pool that its steps draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fomo_dagster.data.declarations import LARGEST_COUNT
from fomo_dagster.data.mixture import POOLS, batch_sizes
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.mixture import AnyMixture
from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.graph.work.counted_costs import cost_of, reference_of
from fomo_dagster.methods.declaration import Finetune, Method
from fomo_dagster.methods.online_selection.declaration import AnyOnlineSelection
from fomo_dagster.optimisation.optimisers import AdamW
from fomo_dagster.training.cost_case import CostCase

if TYPE_CHECKING:
    from fomo_dagster.training.compute import Cost


def case_of(
    architecture: Any,
    settings: TrainingSettings,
    method: Method,
    mixture: AnyMixture,
    stages: int,
    selection: AnyOnlineSelection | None = None,
) -> CostCase:
    """What is counted for a method: a step in which the pools have their mean shares."""
    shares = [mixture.of_stage(stage) for stage in range(1, stages + 1)]
    mean = {pool: sum(of_stage.mean(pool) for of_stage in shares) for pool in POOLS}
    return CostCase(
        architecture=architecture,
        settings=settings,
        method=method,
        sizes=batch_sizes(settings.batch_size, mean, may_vanish=POOLS),
        reference=reference_of(method, architecture),
        selection=selection,
    )


def full_finetuning(case: CostCase) -> CostCase:
    """What a method's memory is held against."""
    settings = case.settings.model_copy(update={"optimiser": AdamW()})
    return CostCase(
        architecture=case.architecture, method=Finetune(), settings=settings, sizes=case.sizes
    )


@dataclass(frozen=True)
class MemoryAdjusted:
    """A method's cost beside that of full fine-tuning."""

    flops_per_step: int
    flops_beside_steps: int
    peak_memory_bytes: int
    multiplier: float
    """Its peak memory over that of full fine-tuning."""

    @classmethod
    def of(cls, case: CostCase, cache: Path) -> MemoryAdjusted:
        """Counts, or looks up, both. Raises `InputError` for what cannot be counted."""
        cost, full = (_counted(one, cache) for one in (case, full_finetuning(case)))
        renewals = cost.steps_between_renewals and cost.flops_at_renewal // (
            cost.steps_between_renewals
        )
        features = case.sizes.get("update", 0) * cost.flops_per_replay_feature
        return cls(
            flops_per_step=cost.flops_per_step + renewals + features,
            flops_beside_steps=cost.flops_beside_steps,
            peak_memory_bytes=cost.peak_memory_bytes,
            multiplier=cost.peak_memory_bytes / full.peak_memory_bytes,
        )

    def steps(self, total: float, stages: int) -> int:
        """The steps of a stage, `round(total / MAFs / stages)`; the work beside them is theirs too.

        Raises `InputError` if the budget does not pay for one step a stage, or pays for more than
        a stage can have.
        """
        steps = self.paid(total, stages)
        if steps < 1:
            least = stages * self.multiplier * (self.flops_per_step + self.flops_beside_steps) / 1e9
            raise InputError(
                f"budget.mafs is {total:g}, and one step in each of {stages} stages takes "
                f"{least:.3g}: raise it, lower batch_size, or have fewer stages"
            )
        if steps > LARGEST_COUNT:
            raise InputError(
                f"budget.mafs is {total:g}, which buys {steps:,} steps in each of {stages} stages; "
                f"a stage can have {LARGEST_COUNT:,}: lower it"
            )
        return steps

    def paid(self, total: float, stages: int) -> int:
        """As `steps`, and 0 where the budget does not pay for one."""
        gigaflops = total / stages / self.multiplier  # of a stage
        of_steps = gigaflops - self.flops_beside_steps / 1e9
        return max(0, round(of_steps / (self.flops_per_step / 1e9)))

    def mafs(self, steps: int) -> float:
        """Of a stage of so many steps."""
        return steps * self.gigaflops_per_step(steps) * self.multiplier

    def gigaflops_per_step(self, steps: int | None) -> float:
        """With its part of the work beside the steps of a stage of so many; None or 0: without."""
        beside = self.flops_beside_steps / steps if steps else 0
        return (self.flops_per_step + beside) / 1e9


def budget_row(
    name: str, case: CostCase, cost: MemoryAdjusted, total: float | None, stages: int
) -> dict[str, Any]:
    """What a budget buys a method, as a row of a table; total None: what a step costs alone. A
    budget that does not pay for the work at the end of a stage buys 0 steps, costed without it.

    measured_memory_gib: of this machine's CUDA device; null if it has none, or too small a one.
    """
    from fomo_dagster.training.compute import measure

    steps = None if total is None else cost.paid(total, stages)
    measured = measure(case)
    gigaflops = cost.gigaflops_per_step(steps)
    return {
        "method": name,
        "gigaflops_per_step": gigaflops,
        "peak_memory_gib": cost.peak_memory_bytes / 2**30,
        "measured_memory_gib": None if measured is None else measured / 2**30,
        "memory_multiplier": cost.multiplier,
        "mafs_per_step": gigaflops * cost.multiplier,
        "steps_per_stage": steps,
        "samples_per_stage": None if steps is None else steps * case.settings.batch_size,
    }


def _counted(case: CostCase, cache: Path) -> Cost:
    try:
        return cost_of(case, cache)
    except InputError:
        raise
    except Exception as error:  # any code of a backbone's library that fake tensors do not run
        raise InputError(
            f"the cost of a step cannot be counted for this architecture or method ({error}): "
            "give the budget in samples, steps or epochs"
        ) from error
