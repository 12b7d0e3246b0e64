"""The files of a training's artifact, and what its asset tells about the training."""

from __future__ import annotations

import contextlib
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from fomo_dagster.data.pixel_rules import NEWEST, Pixels
from fomo_dagster.errors import StoreError
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.experiment.weights_folder import described
from fomo_dagster.graph.core.shown import Picture, Shown
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.artifacts import Artifact

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.evaluation.encoding import Encoder
    from fomo_dagster.experiment.execution import Execution
    from fomo_dagster.graph.core.context import NodeContext
    from fomo_dagster.models.backbones import Model

WEIGHTS = "weights.safetensors"
ADAPTERS = "adapters.safetensors"
UNANNEALED = "unannealed.safetensors"  # the weights before the anneal, for the next stage
UNANNEALED_ADAPTERS = "unannealed_adapters.safetensors"  # in their place, where adapters persist
REPLAY_FEATURES = "remembered.safetensors"  # features of a stage's samples, for all that follow
STATISTICS = "statistics.safetensors"  # of what weights were trained on, tensor by tensor
CARRIED = "carried.safetensors"  # what a preservation leaves for the next stage
STEPS = "training_steps.parquet"
SPEED = "samples_per_second.parquet"  # of each step: in the record, as its clock is no content
SPEEDS = ("samples_per_second", "flops_utilisation")  # its columns
CURVES = "training.png"  # in the record
COSTS = ("flops", "peak_device_memory_bytes", "peak_process_memory_bytes", "energy_joules")
STREAMING_COSTS = ("streamed_shards", "skipped_members")


def training_parameters(settings: TrainingSettings) -> dict[str, Any]:
    """The settings that change what a training computes, as plain data."""
    return settings.model_dump(mode="json", include=set(TrainingSettings.model_fields))


def load_weights(backbone: Backbone, path: Path) -> Model:
    """The backbone's model with the weights of a checkpoint."""
    from fomo_dagster.models.backbones import load

    told = described(backbone)
    return load(told.architecture, path, told.pretrained, told.images, folder=told.weights)


def encoder_of(
    backbone: Backbone,
    checkpoint: Artifact,
    precision: str,
    execution: Execution,
    context: NodeContext,
    pixels: Pixels = NEWEST,
) -> Encoder:
    """What encodes with the weights of a checkpoint; the model is loaded once for all that follows
    with the same weights. pixels: how images are decoded and resized."""
    from fomo_dagster.evaluation.encoding import Encoder

    model = context.cached(
        ("model", checkpoint.digest), lambda: load_weights(backbone, checkpoint.path(WEIGHTS))
    )
    return Encoder.of(model, precision, execution, pixels, context.callbacks.progress)


def steps_of(artifact: Artifact) -> pl.DataFrame:
    """The steps of a training, columns of `StepMetrics` and `flops_utilisation`; how fast they were
    is null if it is not known, or no longer."""
    import polars as pl

    steps = read_parquet(artifact.path(STEPS))
    told = _record_of_speed(artifact)
    for name in SPEEDS:
        if name in steps.columns:  # as it was kept before there were records
            continue
        speed = pl.Series(name, [None] * steps.height, pl.Float64)
        if name in told.columns and told[name].dtype == speed.dtype and len(told) == len(speed):
            speed = told[name]
        steps = steps.with_columns(speed)
    return steps


def _record_of_speed(artifact: Artifact) -> pl.DataFrame:
    """What is there of it: nobody needs it, and it is not among the artifact's content."""
    import polars as pl

    path = artifact.record(SPEED)
    if path is not None:
        with contextlib.suppress(StoreError, OSError):
            return read_parquet(path)
    return pl.DataFrame()


def steps_table(artifact: Artifact, *, experiment: str, stage: int) -> tuple[str, pl.DataFrame]:
    """The table of a training's steps, as the asset that it belongs to gives it."""
    import polars as pl

    from fomo_dagster.tables.schemas import SCHEMAS

    steps = steps_of(artifact).with_columns(
        experiment=pl.lit(experiment), stage=pl.lit(stage, pl.Int64)
    )
    if "preservation_loss" not in steps.columns:  # trained before there was anything to add
        steps = steps.with_columns(preservation_loss=pl.lit(0.0))
    return "training_steps", steps.select(*SCHEMAS["training_steps"])


def drawn_samples(settings: TrainingSettings) -> int | None:
    """Samples of all pools that a training draws, for an estimate; None if the budget is in epochs,
    whose length depends on the chunk."""
    budget = settings.budget
    steps = budget.known_steps(settings.batch_size)
    return None if steps is None else steps * settings.batch_size  # of samples, full batches


def shown_of_training(artifact: Artifact) -> dict[str, Shown]:
    """What a person sees of a training; empty if the artifact is not of one."""
    if STEPS not in artifact.manifest["files"]:
        return {}
    steps = steps_of(artifact)
    speeds = {name: steps[name].drop_nulls().to_list() for name in SPEEDS}
    medians = {name: median(values) if values else None for name, values in speeds.items()}
    rounded = {
        "samples_per_second": (medians["samples_per_second"], 1),
        "flops_utilisation": (medians["flops_utilisation"], 3),
        "seconds": (artifact.cost.get("seconds"), 2),
    }
    return {
        "loss_over_steps": Picture(artifact.record(CURVES)),
        "final_loss": round(float(steps["loss"][-1]), 4),
        "steps": steps.height,
        "processes": int(artifact.cost.get("processes", 1)),
        **{name: round(v, places) for name, (v, places) in rounded.items() if v is not None},
        **{name: artifact.cost[name] for name in COSTS if name in artifact.cost},
        **{name: int(artifact.cost[name]) for name in STREAMING_COSTS if name in artifact.cost},
    }
