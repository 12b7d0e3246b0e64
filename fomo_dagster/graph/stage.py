"""One training from pools to an artifact's files; stages and the making of θ₀ share it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fomo_dagster.data.batches import Batches
from fomo_dagster.data.pools import Pool
from fomo_dagster.data.transforms import augment
from fomo_dagster.experiment.schema import Execution
from fomo_dagster.experiment.selections import Train
from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.graph.model_nodes import CURVES, STEPS, WEIGHTS
from fomo_dagster.methods.trained_parameters import select_trained
from fomo_dagster.models.backbones import Model, save
from fomo_dagster.plots.training import training_plot
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.training.loop import train as train_model
from fomo_dagster.training.steps import steps_of

if TYPE_CHECKING:
    from fomo_dagster.graph.workshop import Workshop


def train_on(
    model: Model,
    pools: Mapping[str, Pool],
    sizes: Mapping[str, int],
    *,
    settings: TrainingSettings,
    train: Train,
    seed: int,
    stage: int,
    execution: Execution,
    recipe: Recipe,
    folder: Path,
    workshop: Workshop,
) -> Mapping[str, Any]:
    """Train `model` on batches drawn from the pools; write its weights, steps and curves.

    sizes: pool → samples of each batch; those of 0 need no pool.
    Returns what it cost: samples and steps. Raises what reading, training and writing raise.
    """
    counted = "update" if sizes.get("update") else "pretraining"  # what an epoch passes over
    steps = steps_of(settings.budget, settings.batch_size, pools[counted].size, sizes[counted])
    batches = Batches(
        pools,
        sizes,
        seed=seed,
        stage=stage,
        steps=steps,
        transform=partial(augment, size=model.image_size, crop_scale=settings.crop_scale),
        tokenize=model.tokenize,
        workers=execution.workers,
    )
    select_trained(model.module, train)
    table = train_model(
        model,
        batches,
        settings=settings,
        seed=seed,
        stage=stage,
        execution=execution,
        resume_folder=workshop.resume_folder(recipe),
        progress=workshop.progress,
        identity=recipe.digest,
    )
    save(model.module.state_dict(), folder / WEIGHTS)
    table.write_parquet(folder / STEPS)
    (folder / CURVES).write_bytes(training_plot(table))
    cost = {"samples": steps * settings.batch_size, "steps": steps}
    for name, pool in pools.items():
        cost |= pool.record(seed, stage, steps * sizes[name])
    return cost
