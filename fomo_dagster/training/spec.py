"""What a stage trains with, and what a training runs with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fomo_dagster.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.methods.declaration import Finetune, Method
from fomo_dagster.methods.online_selection.declaration import AnyOnlineSelection
from fomo_dagster.optimisation.annealing import steps_before_anneal
from fomo_dagster.progress import Progress, no_progress
from fomo_dagster.store.resume_copies import ResumeCopies
from fomo_dagster.training.meter import Meter
from fomo_dagster.training.step_metrics import StepMetrics


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """What a stage trains with, beside weights and data.

    stage: counted from 1; 0 is the making of θ₀. selection: which rows of larger batches are
    trained on. stored_precision: of the weights that it leaves, fp32 or bf16. execution changes no
    number but by rounding.
    """

    settings: TrainingSettings
    seed: int
    stage: int
    execution: Execution
    method: Method = field(default_factory=Finetune)
    selection: AnyOnlineSelection | None = None
    stored_precision: str = "fp32"

    def leaves_at(self, steps: int) -> int | None:
        """After how many of the stage's steps its weights are what the next one starts from, where
        that is before its anneal; None: at its end.

        Raises `InputError` if there is no anneal, or nothing before it.
        """
        if self.method.start_from != "unannealed" or not self.stage:
            return None
        return steps_before_anneal(self.settings.schedule, steps)


def ignore_metrics(metrics: Sequence[StepMetrics]) -> None:
    """Is told, and does nothing."""


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What a training runs with; none of it changes what it computes.

    identity: whose resume point it is. A training that finds one of the same identity in
    `resume_folder` continues from there, to the same weights, bit for bit. on_steps: hears of the
    metrics of each step as they are read, of a resume point's all at once. meter: measures what it
    costs, and continues with what was spent before; None: one of its own. copies: those of the
    resume point on a remote; None: there are none.
    """

    resume_folder: Path
    identity: str
    progress: Progress = no_progress
    on_steps: Callable[[Sequence[StepMetrics]], None] = ignore_metrics
    group: ProcessGroup = SINGLE_PROCESS
    meter: Meter | None = None
    copies: ResumeCopies | None = None
