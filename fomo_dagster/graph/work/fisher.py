"""The Fisher information of what a stage brings, of all parameters of the weights it trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fomo_dagster.data.pixel_rules import Pixels
from fomo_dagster.data.pools import Pool
from fomo_dagster.distributed.process_group import SINGLE_PROCESS
from fomo_dagster.graph.work.stage import StageBatches
from fomo_dagster.methods.preservation.ewc.hooks import fisher
from fomo_dagster.models.backbones import Model, save
from fomo_dagster.models.devices import device_of
from fomo_dagster.models.operations import counter
from fomo_dagster.progress import Progress
from fomo_dagster.training.determinism import deterministic
from fomo_dagster.training.meter import Meter
from fomo_dagster.training.setup import Placement, begin_stage
from fomo_dagster.training.spec import StageSpec


def write_fisher(
    model: Model,
    update: Pool,
    spec: StageSpec,
    path: Path,
    *,
    samples: int,
    batch_size: int,
    pixels: Pixels,
    progress: Progress,
) -> Mapping[str, Any]:
    """Write the diagonal of the Fisher information (`fisher`, of at most so many samples) in place
    of the weights; buffers of real numbers have 0, and integers stay. Gives what it cost.

    pixels: how the pool decodes. Raises what reading and writing raise, and as `begin_stage`.
    """
    device = device_of(spec.execution.device)
    meter = Meter(device)
    batches = StageBatches(model, {"update": update}, spec, SINGLE_PROCESS, progress, pixels)
    model.module.requires_grad_(True).to(device)
    placement = Placement(device=device, micro_batch_size=spec.execution.micro_batch_size)
    with deterministic(device), counter() as operations:
        stage_context, _ = begin_stage(model, spec, placement)
        found = fisher(stage_context, batches.update(batch_size, samples))
    of_parameter = {id(p): found[name] for name, p in stage_context.trained.items()}
    statistics = {
        name: of_parameter.get(id(own), torch.zeros_like(own) if own.is_floating_point() else own)
        for name, own in model.module.state_dict(keep_vars=True).items()
    }
    save(statistics, path)
    return {"flops": int(operations.get_total_flops()), **meter.costs()}
