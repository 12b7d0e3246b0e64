"""Training through one stage, so that a kill at any moment costs time and changes no weight.

Every step is a function of the weights, the optimiser's state, its batch and its own seed; a
rolling resume point holds the first two and the position. Each process has one device; of several,
all hold the same weights and compute the same figures, and the first alone writes and tells.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from signal import Signals
from typing import NamedTuple, Protocol

import polars as pl
from torch import Tensor

from fomo_dagster.distributed.parameter_shards import UNSHARDED
from fomo_dagster.distributed.process_group import ProcessGroup
from fomo_dagster.errors import InputError, PeerError, StoreError, TrainingError
from fomo_dagster.methods.online_selection.choosing import Features, OnlineSelection
from fomo_dagster.methods.preservation.hooks import Batch, StageContext, StageHooks
from fomo_dagster.models.backbones import Model
from fomo_dagster.models.devices import device_of
from fomo_dagster.progress import Progress, no_progress
from fomo_dagster.training.allocator import keep_freed_memory
from fomo_dagster.training.determinism import deterministic, step_seed
from fomo_dagster.training.interruption import Interruption
from fomo_dagster.training.learner import Learner
from fomo_dagster.training.meter import Meter
from fomo_dagster.training.precision import matrix_products
from fomo_dagster.training.resume import ResumePoint
from fomo_dagster.training.setup import Placement, build_learner
from fomo_dagster.training.sharding import share_out
from fomo_dagster.training.spec import StageSpec, TrainingRun, ignore_metrics
from fomo_dagster.training.step_metrics import StepMetrics, StepMetricsTable
from fomo_dagster.training.towers import checkpoint_gradients, compiler_for

_STEPS_BETWEEN_READS = 50  # on an accelerator, which would wait for each read


class Trained(NamedTuple):
    """What a training gives beside the weights."""

    steps: pl.DataFrame
    """The metrics of each step, in the columns of `StepMetrics`."""
    left: dict[str, Tensor]
    """What the preservation leaves for the next stage."""
    unannealed: dict[str, Tensor]
    """What training changes of the module's state, as it was before the anneal, on the CPU, where
    the next stage starts from that; else empty."""


class Batches(Protocol):
    """The batches of a stage, each a function of its step alone."""

    @property
    def steps(self) -> int:
        """How many there are."""

    def iterate(self, start: int) -> Iterator[Batch]:
        """Those of the steps `start`, `start` + 1, … to the last."""


def train(
    model: Model,
    batches: Batches,
    spec: StageSpec,
    run: TrainingRun,
    preserve: Callable[[StageContext], StageHooks] = StageHooks,
    select: Callable[[StageContext, Features], OnlineSelection] | None = None,
) -> Trained:
    """Train `model.module` in place through all batches; of processes that share its weights out,
    the first alone has what is trained at the end.

    preserve: makes the preservation. The parameters that ask for a gradient are trained, each part
    of the module in the mode that it is in (see `methods.trained_parameters`); where the method has
    an average, they end as that of their steps. What `select` makes keeps the rows of each batch
    that are trained on, and that alone are counted; without it all are.

    Raises `TrainingError` for a loss or gradient that is not finite, `KeyboardInterrupt` on SIGINT
    and SIGTERM once the resume point is written (both name it, and it never holds weights that such
    a step touched), `InputError` for settings that this model or machine cannot run, and
    `StoreError` where the resume point cannot be written.
    """
    settings, execution, group = spec.settings, spec.execution, run.group
    problem = settings.misfit(batches.steps)
    if problem is not None:
        raise InputError(problem)
    leaves_at = spec.leaves_at(batches.steps)
    device = device_of(execution.device)
    if device.type == "cpu":
        keep_freed_memory()
    if execution.gradient_checkpointing:
        checkpoint_gradients(model.module)
    with deterministic(device), matrix_products(settings.precision, device):
        trained, shards = model.module, UNSHARDED
        if execution.sharded:
            trained, shards = share_out(model.module, group, device)
        else:
            model.module.to(device)
        placement = Placement(
            device=device,
            micro_batch_size=execution.micro_batch_size,
            compile_tower=compiler_for(device) if execution.compile else None,
            group=group,
            shards=shards,
        )
        learner = build_learner(
            replace(model, module=trained), spec, placement, batches.steps, preserve, select
        )
        with Interruption() as interruption:
            training = _Training(
                batches=batches,
                learner=learner,
                metrics=StepMetricsTable(),
                spec=spec,
                point=ResumePoint(run.resume_folder, run.identity, run.copies),
                steps_between_reads=1 if device.type == "cpu" else _STEPS_BETWEEN_READS,
                interruption=interruption,
                progress=run.progress if group.is_main else no_progress,
                on_steps=run.on_steps if group.is_main else ignore_metrics,
                group=group,
                meter=run.meter or Meter(device, group),
                leaves_at=leaves_at,
            )
            training.run()
        left = learner.end_of_stage()
        if execution.sharded:
            weights = learner.weights()
            if group.is_main:
                model.module.load_state_dict(weights, strict=False)
        return Trained(training.metrics.frame(), left, learner.unannealed)


@dataclass(kw_only=True)
class _Training:
    batches: Batches
    learner: Learner
    metrics: StepMetricsTable
    spec: StageSpec
    point: ResumePoint
    steps_between_reads: int
    interruption: Interruption
    progress: Progress
    on_steps: Callable[[Sequence[StepMetrics]], None]
    group: ProcessGroup
    meter: Meter
    leaves_at: int | None

    def run(self) -> None:
        """Whatever ends it, nothing is written any more then."""
        try:
            self._run()
        finally:
            self.point.wait()
        self.point.settle()

    def _run(self) -> None:
        start = self._restore()
        steps = self.batches.steps
        saved_at = time.monotonic()
        iterator = self.batches.iterate(start)
        for step in range(start, steps):
            batch = self._next(iterator, step)
            if step == self.leaves_at:
                self.learner.leave_unannealed()
            rate = self.spec.settings.schedule.learning_rate(
                self.spec.settings.peak_learning_rate,
                stage=self.spec.stage,
                step=step,
                steps=steps,
            )
            seed = step_seed(self.spec.seed, self.spec.stage, step)
            towers = self.spec.settings.tower_factors(step, steps)
            measured = self.learner.step(batch, rate, towers, seed)
            self.metrics.add(step, rate, self.learner.trained_of(batch.counts), measured)
            if self.metrics.unread >= self.steps_between_reads or step + 1 == steps:
                self._read()
            is_due = time.monotonic() - saved_at >= self.spec.execution.resume_seconds
            if self._stop_if_asked(step + 1, is_due=is_due) and step + 1 < steps:
                self._save(step + 1)
                saved_at = time.monotonic()

    def _next(self, iterator: Iterator[Batch], step: int) -> Batch:
        """The next batch. A failure to make it loses no step, nor does one that a signal caused in
        the processes that make batches."""
        batch, failure = None, None
        try:
            batch = next(iterator, None)
        except Exception as error:
            failure = error
        if any(self.group.all_reduce_max(failure is not None)):
            self._stop_if_asked(step)
            self._save(step, is_last=True)
            raise failure or PeerError(f"another process has no batch for step {step}")
        if batch is None:
            raise ValueError(f"the batches end at step {step}, but there are {self.batches.steps}")
        return batch

    def _stop_if_asked(self, done: int, *, is_due: bool = False) -> bool:
        """Whether a resume point is due for any process, where none was asked to stop."""
        received, any_is_due = self.group.all_reduce_max(self.interruption.number, is_due)
        if received:
            self._save(done, is_last=True)
            raise KeyboardInterrupt(
                f"{Signals(received).name} at stage {self.spec.stage}, after {done} of "
                f"{self.batches.steps} steps: the resume point {self.point}"
            )
        return bool(any_is_due)

    def _restore(self) -> int:
        """Take up the resume point; return the number of steps that are done."""
        if self.group.is_main:
            self.point.pull()
        self.group.all_reduce_max(0)  # the others read what it may have fetched
        state = self.point.load()
        position = state["position"] if state is not None else 0
        if self.group.all_reduce_max(position, -position) != [position, -position]:
            raise StoreError(
                f"not all processes read the same resume point at {self.point.path}: FOMO_HOME "
                "must be one folder that all machines share"
            )
        if state is not None:
            try:
                if not 0 <= position <= self.batches.steps:
                    raise ValueError(f"it stands at step {position} of {self.batches.steps}")
                self.learner.restore(state["learner"])
                self.metrics.restore(state["figures"])
                self.meter.restore(state.get("spent", {}))
            except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
                if self.group.is_main:
                    self.point.set_aside()
                raise TrainingError(
                    f"stage {self.spec.stage}: the resume point {self.point.path} does not "
                    f"belong to this training ({type(error).__name__}: {error}): it is set "
                    "aside; run again to start the stage over"
                ) from error
            self.on_steps(self.metrics.rows)
        return position

    def _save(self, done: int, *, is_last: bool = False) -> None:
        self._read()  # weights that a failed step has touched must not become the resume point
        state, spent = self.learner.state(), self.meter.state()
        if not self.group.is_main:
            return
        save = self.point.save_last if is_last else self.point.save
        save(
            {
                "learner": state,
                "figures": self.metrics.state(),
                "position": done,
                "spent": spent,
            }
        )

    def _read(self) -> None:
        read = self.metrics.read()
        for metrics in read:
            self._check(metrics)
        self.on_steps(read)
        if self.metrics.rows:
            last = self.metrics.rows[-1]
            self.progress(
                "training", last.step + 1, self.batches.steps, detail=f"loss {last.loss:.4f}"
            )

    def _check(self, metrics: StepMetrics) -> None:
        # fp16 looks for too large a loss scale by overflowing, and skips the step where it does
        gradient_counts = self.spec.settings.precision != "fp16"
        for name, value, counts in (
            ("loss", metrics.loss, True),
            ("preservation loss", metrics.preservation_loss, True),
            ("gradient", metrics.gradient_norm, gradient_counts),
        ):
            if counts and not math.isfinite(value):
                raise TrainingError(
                    f"stage {self.spec.stage}, step {metrics.step} of {self.batches.steps}: the "
                    f"{name} is {value} (learning rate {metrics.learning_rate:g}, samples: "
                    f"{metrics.update_samples} update, {metrics.buffer_samples} buffer, "
                    f"{metrics.pretraining_samples} pretraining). The resume point before it: "
                    f"{self.point}. Lower the learning rate, or train in fp32"
                )
