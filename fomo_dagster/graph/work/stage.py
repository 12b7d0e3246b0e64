"""One training, from pools to an artifact's files; stages and the making of θ₀ share it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from safetensors.torch import load_file
from torch import Tensor

from fomo_dagster.data.batches import Batches
from fomo_dagster.data.mixture import POOLS, StageShares, StepSizes, batch_sizes
from fomo_dagster.data.pixel_rules import Pixels
from fomo_dagster.data.pools import Pool
from fomo_dagster.data.transforms import augment
from fomo_dagster.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.graph.work.checkpoints import (
    ADAPTERS,
    CARRIED,
    CURVES,
    SPEED,
    SPEEDS,
    STEPS,
    UNANNEALED,
    UNANNEALED_ADAPTERS,
    WEIGHTS,
)
from fomo_dagster.graph.work.counted_costs import reference_of, training_flops
from fomo_dagster.methods.adapters.declaration import Adapters
from fomo_dagster.methods.adapters.wrapping import Adapted
from fomo_dagster.methods.online_selection.choosing import begin_selection
from fomo_dagster.methods.preservation.hooks import Batch, StageInputs
from fomo_dagster.methods.preservation.registry import begin
from fomo_dagster.models.backbones import Model, save
from fomo_dagster.models.devices import device_of
from fomo_dagster.plots.training import training_plot
from fomo_dagster.progress import Progress, no_progress, with_progress
from fomo_dagster.store.artifacts import record_path
from fomo_dagster.store.files import explained
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.store.roots import RECIPE
from fomo_dagster.training.cost_case import CostCase
from fomo_dagster.training.determinism import step_seed
from fomo_dagster.training.loop import train as train_model
from fomo_dagster.training.meter import Meter
from fomo_dagster.training.setup import prepare_trainable
from fomo_dagster.training.spec import StageSpec, TrainingRun
from fomo_dagster.training.steps import steps_of, steps_that_draw
from fomo_dagster.training.utilisation import peak_of_all, with_utilisation

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext

_INITIALISATION = -1  # the step before the first, whose seed adapters begin with


@dataclass(frozen=True)
class Target:
    """Whose weights are trained, by what recipe, and where their files go."""

    asset: str
    recipe: Recipe
    folder: Path


def train_on(
    model: Model,
    pools: Mapping[str, Pool],
    shares: StageShares,
    spec: StageSpec,
    target: Target,
    context: NodeContext,
    stage_inputs: StageInputs | None = None,
) -> Mapping[str, Any]:
    """Train `model` on batches drawn from the pools; write its weights, steps and curves.

    shares: of the pools in the batches. Adapters that persist are written beside the weights, which
    have them merged; so is what the method's preservation leaves. stage_inputs: what that may look
    at, except for the samples. The pools decode by the way that the target's recipe says.

    Of several processes (the context's), each trains, and the first alone writes.
    Returns what it cost: samples that were trained on, those that were drawn where they are others,
    steps, operations, and what the meter tells. Raises what reading, training and writing raise.
    """
    settings, method, selection = spec.settings, spec.method, spec.selection
    stage_inputs = stage_inputs or StageInputs()
    sizes = shares.sizes(settings.batch_size, _steps(settings, shares, pools))
    steps = sizes.steps
    of_batches = sizes if selection is None else sizes.enlarged(selection.share)
    group = context.group
    if group.is_main:
        _say_recipe(target.recipe, context)
    progress = context.callbacks.progress if group.is_main else no_progress
    pixels = Pixels.of(target.recipe.parameters)
    batches = StageBatches(model, pools, spec, group, progress, pixels)
    adapted = prepare_trainable(
        model.module,
        method,
        step_seed(spec.seed, spec.stage, _INITIALISATION),
        load_file(stage_inputs.continued) if stage_inputs.continued is not None else None,
    )
    device = device_of(spec.execution.device)
    meter = Meter(device, group)
    run = TrainingRun(
        resume_folder=context.resume_folder(target.recipe),
        identity=target.recipe.digest,
        progress=progress,
        on_steps=lambda steps: context.callbacks.steps(
            target.asset, target.recipe.digest, [s._asdict() for s in steps]
        ),
        group=group,
        meter=meter,
        copies=context.resume_copies(target.recipe) if spec.execution.resume_remote else None,
    )
    select = None
    if selection is not None:
        select = partial(begin_selection, selection, stage_inputs.selecting)
    looked_at = replace(
        stage_inputs, update=batches.update, pretraining=batches.pretraining, pairs=batches.pairs
    )
    preserve = partial(begin, method.preserve, looked_at)
    drawn = batches.drawn(of_batches, group)
    trained = train_model(model, drawn, spec, run, preserve, select)
    measured = meter.costs()
    peak = peak_of_all(device, settings.precision, group)
    if not group.is_main:
        return {}
    if trained.left:
        save(trained.left, target.folder / CARRIED)
    if trained.unannealed:
        _write_unannealed(model, adapted, spec, trained.unannealed, target.folder)
    _write_weights(model, adapted, spec, target.folder)
    cost: dict[str, Any] = {"samples": steps * settings.batch_size, "steps": steps}
    cost |= measured
    case = _case(model, spec, pools, sizes, stage_inputs)
    cost |= training_flops(case, steps, context.home.cache)
    table = with_utilisation(trained.steps, cost.pop("flops_per_step", None), peak)
    _write_table(table, target.folder)
    if selection is not None:
        cost["drawn_samples"] = sum(of_batches.drawn.values())
    for name, pool in pools.items():
        cost |= pool.record(spec.seed, spec.stage, of_batches.drawn[name])
    return cost


def _say_recipe(recipe: Recipe, context: NodeContext) -> None:
    """Leave what the training is made from beside its resume point, so that nobody cleans that."""
    path = context.resume_folder(recipe) / RECIPE
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or not path.stat().st_size:
            path.write_text(json.dumps(recipe.as_data()))


def _case(
    model: Model,
    spec: StageSpec,
    pools: Mapping[str, Pool],
    sizes: StepSizes,
    stage_inputs: StageInputs,
) -> CostCase:
    """What decides the operations of the stage."""
    batch_size = spec.settings.batch_size
    return CostCase(
        architecture=model.architecture,
        method=spec.method,
        settings=spec.settings,
        sizes=batch_sizes(batch_size, sizes.drawn, may_vanish=POOLS),
        goes_on=bool(stage_inputs.carried) or stage_inputs.replay_features is not None,
        update_samples=pools["update"].size if "update" in pools else None,
        reference=reference_of(spec.method, model.architecture),
        selection=spec.selection,
    )


@dataclass(frozen=True)
class StageBatches:
    """The batches of a stage: those to train on, and those that its method makes estimates of."""

    model: Model
    pools: Mapping[str, Pool]
    spec: StageSpec
    group: ProcessGroup
    progress: Progress
    pixels: Pixels

    def drawn(self, sizes: StepSizes, group: ProcessGroup) -> Batches:
        """Of these sizes, each process of the group its rows of each."""
        return Batches(
            self.pools,
            sizes,
            seed=self.spec.seed,
            stage=self.spec.stage,
            transform=partial(
                augment,
                size=self.model.image_size,
                crop_scale=self.spec.settings.crop_scale,
                interpolation=self.model.interpolation,
                pixels=self.pixels,
            ),
            tokenize=self.model.tokenize,
            workers=self.spec.execution.workers,
            group=group,
            pinned=device_of(self.spec.execution.device).type == "cuda",
        )

    def update(self, size: int, samples: int) -> Iterator[Batch]:
        """See `StageInputs.update`."""
        return self._alone("update", size, samples)

    def pretraining(self, size: int, samples: int) -> Iterator[Batch]:
        """See `StageInputs.pretraining`."""
        return self._alone("pretraining", size, samples)

    def _alone(self, pool: str, size: int, samples: int) -> Iterator[Batch]:
        world_size, preserve = self.group.world_size, self.spec.method.preserve
        available = self._available(pool, samples)
        size = min(size, available) or size
        if size < world_size:
            raise InputError(
                f"{world_size} processes cannot share batches of {size} samples, of which "
                f"{preserve.name if preserve else 'the method'} makes its estimate: "
                "lower execution.processes"
            )
        steps = max(1, available // size)
        batches = self.drawn(StepSizes.constant({pool: size}, steps), self.group).iterate(0)
        return with_progress(batches, "estimate", steps, self.progress)

    def pairs(self, samples: int) -> Iterator[Batch]:
        """See `StageInputs.pairs`."""
        count, world_size = max(1, self._available("update", samples)), self.group.world_size
        ones = StepSizes.constant({"update": 1}, count)
        batches = self.drawn(ones, SINGLE_PROCESS).iterate(self.group.rank, world_size)
        return with_progress(batches, "estimate", -(-count // world_size), self.progress)

    def _available(self, pool: str, samples: int) -> int:
        if pool not in self.pools:
            return 0
        size = self.pools[pool].size
        if size is None and pool == "pretraining":  # streamed, and far larger
            return samples
        return min(samples, size or 0)


def _write_weights(model: Model, adapted: Adapted | None, spec: StageSpec, folder: Path) -> None:
    """The weights, with adapters merged into them; beside them those that persist."""
    method = spec.method
    if adapted is not None:
        if isinstance(method, Adapters) and method.adapters == "persist":
            save(adapted.state(), folder / ADAPTERS)
        model.module.cpu()  # so that the sums do not depend on the device
        adapted.merge()
    save(model.module.state_dict(), folder / WEIGHTS, spec.stored_precision)


def _write_unannealed(
    model: Model,
    adapted: Adapted | None,
    spec: StageSpec,
    unannealed: Mapping[str, Tensor],
    folder: Path,
) -> None:
    """The weights as they were before the anneal, with adapters merged into them; of adapters that
    persist themselves alone, as the next stage has them over θ₀."""
    module, copied = copy.deepcopy((model.module.cpu(), adapted))
    module.load_state_dict(unannealed, strict=False)
    method = spec.method
    if copied is not None and isinstance(method, Adapters) and method.adapters == "persist":
        save(copied.state(), folder / UNANNEALED_ADAPTERS)
        return
    if copied is not None:
        copied.merge()
    save(module.state_dict(), folder / UNANNEALED, spec.stored_precision)


def _write_table(table: pl.DataFrame, folder: Path) -> None:
    """The steps; beside the artifact's content, how fast they were and their curves."""
    table.drop(*SPEEDS).write_parquet(folder / STEPS)
    table.select(*SPEEDS).write_parquet(record_path(folder, SPEED))
    record_path(folder, CURVES).write_bytes(training_plot(table))


def _steps(settings: TrainingSettings, shares: StageShares, pools: Mapping[str, Pool]) -> int:
    """The steps of a stage; an epoch passes over the update pool or, without one, over that of
    pretraining."""
    budget, batch_size = settings.budget, settings.batch_size
    counted = "update" if "update" in shares.pools else "pretraining"
    size = pools[counted].size
    steps = steps_of(budget, batch_size, size, shares.mean_size(counted, batch_size))
    if budget.epochs is None or size is None or shares.is_constant:
        return steps
    return steps_that_draw(
        budget.epochs * size, partial(shares.drawn, counted, batch_size), near=steps
    )
