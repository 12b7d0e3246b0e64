"""Statistics of what a stage brings, at the weights that it trained, for merges that take them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fomo_dagster.data.pixel_rules import Pixels
from fomo_dagster.data.pools import Pool
from fomo_dagster.distributed.process_group import SINGLE_PROCESS
from fomo_dagster.graph.work.stage import StageBatches
from fomo_dagster.methods.preservation.ewc.hooks import fisher
from fomo_dagster.methods.preservation.hooks import Batch, StageContext
from fomo_dagster.methods.preservation.layer_inputs import input_squares, projected_layers
from fomo_dagster.models.backbones import Model, save
from fomo_dagster.models.devices import device_of
from fomo_dagster.models.operations import counter
from fomo_dagster.progress import Progress
from fomo_dagster.training.determinism import deterministic
from fomo_dagster.training.meter import Meter
from fomo_dagster.training.setup import Placement, begin_stage
from fomo_dagster.training.spec import StageSpec


class Writer(Protocol):
    """Writes statistics to a file, of at most so many samples of a pool, and gives what it cost.

    pixels: how the pool decodes. Raises what reading and writing raise, and as `begin_stage`.
    """

    def __call__(
        self, model: Model, update: Pool, spec: StageSpec, path: Path, *,
        samples: int, batch_size: int, pixels: Pixels, progress: Progress,
    ) -> Mapping[str, Any]: ...  # fmt: skip


class _Beginning(NamedTuple):
    stage_context: StageContext
    batches: Iterable[Batch]
    cost: dict[str, Any]
    """Complete once the context ends."""


@contextmanager
def _begun(
    model: Model, update: Pool, spec: StageSpec, samples: int, batch_size: int, pixels: Pixels,
    progress: Progress,
) -> Iterator[_Beginning]:  # fmt: skip
    device = device_of(spec.execution.device)
    meter = Meter(device)
    batches = StageBatches(model, {"update": update}, spec, SINGLE_PROCESS, progress, pixels)
    model.module.requires_grad_(True).to(device)
    placement = Placement(device=device, micro_batch_size=spec.execution.micro_batch_size)
    cost: dict[str, Any] = {}
    with deterministic(device), counter() as operations:
        stage_context, _ = begin_stage(model, spec, placement)
        yield _Beginning(stage_context, batches.update(batch_size, samples), cost)
    cost |= {"flops": int(operations.get_total_flops()), **meter.costs()}


def write_fisher(
    model: Model, update: Pool, spec: StageSpec, path: Path, *,
    samples: int, batch_size: int, pixels: Pixels, progress: Progress,
) -> Mapping[str, Any]:  # fmt: skip
    """The diagonal of the Fisher information (`fisher`) in place of the weights, divided by its
    root mean square over all parameters. Buffers of real numbers have 0, and integers stay."""
    with _begun(model, update, spec, samples, batch_size, pixels, progress) as begun:
        found = fisher(begun.stage_context, begun.batches)
    scale = _root_mean_square(found.values()) or 1.0
    of_parameter = {
        id(p): found[name].double().div(scale).float()
        for name, p in begun.stage_context.trained.items()
    }
    statistics = {
        name: of_parameter.get(id(own), torch.zeros_like(own) if own.is_floating_point() else own)
        for name, own in model.module.state_dict(keep_vars=True).items()
    }
    save(statistics, path)
    return begun.cost


def _root_mean_square(tensors: Iterable[Tensor]) -> float:
    total, count = 0.0, 0
    for tensor in tensors:
        total += float(tensor.double().square().sum())
        count += tensor.numel()
    return math.sqrt(total / count)


def write_inputs(
    model: Model, update: Pool, spec: StageSpec, path: Path, *,
    samples: int, batch_size: int, pixels: Pixels, progress: Progress,
) -> Mapping[str, Any]:  # fmt: skip
    """`XᵀX / N`, (n, n), of the inputs X of each layer that lets them be seen, by the name of its
    weights (m, n): rows are the tokens of N samples."""
    seen = 0
    sums: dict[str, Tensor] = {}
    with _begun(model, update, spec, samples, batch_size, pixels, progress) as begun:
        layers = seen_layers(model.module)

        def counted() -> Iterator[Batch]:
            nonlocal seen
            for batch in begun.batches:
                seen += len(batch.images)
                yield batch

        with queries_of_others(layers) as of_others:
            for squares in input_squares(begun.stage_context, layers, counted()):
                for name, square in squares.items():
                    sums[name] = sums[name] + square.double() if name in sums else square.double()
    moments = {n: (one / seen).float().cpu() for n, one in sums.items() if n not in of_others}
    save(moments, path)
    return begun.cost


def seen_layers(module: nn.Module) -> dict[str, tuple[nn.Module, int]]:
    """The layers whose inputs can be seen, by the name of their weights, and how wide these are:
    linear ones, and what makes queries, keys and values of the same tokens."""
    found: dict[str, tuple[nn.Module, int]] = {
        name: (layer, layer.in_features) for name, layer in projected_layers(module).items()
    }
    for name, layer in module.named_modules():
        if isinstance(layer, nn.MultiheadAttention) and layer.in_proj_weight is not None:
            found[f"{name}.in_proj_weight"] = (layer, layer.embed_dim)
    return found


@contextmanager
def queries_of_others(layers: Mapping[str, tuple[nn.Module, int]]) -> Iterator[set[str]]:
    """The names of those that, meanwhile, made queries of other tokens than keys and values, as
    attention that pools does: their weights have no one input."""
    found: set[str] = set()

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if any(one is not inputs[0] for one in inputs[1:3]):
                found.add(name)

        return layers[name][0].register_forward_pre_hook(see)

    attention = (n for n, (layer, _) in layers.items() if isinstance(layer, nn.MultiheadAttention))
    handles = [watch(name) for name in attention]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


WRITERS: Mapping[str, Writer] = {"fisher": write_fisher, "inputs": write_inputs}
"""By what a technique says that it takes."""
