"""Divides a model's weights, gradients and optimiser state among processes, by PyTorch's FSDP2.

Each block of a tower, and what is left of each part of the model, is gathered when it computes and
released afterwards. Gradients are added up into the rows that each process holds. Numbers stay
single precision, apart from autocast, so the weights are those of one process.

Settings that need whole matrices or gradients of single processes are refused when an experiment is
loaded. Compilation is not covered.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from fomo_dagster.distributed.parameter_shards import ParameterShards
from fomo_dagster.distributed.process_group import ProcessGroup
from fomo_dagster.models.backbones import Clip

_OF_THE_LOSS = ("logit_scale", "logit_bias")  # which takes them outside of the towers


def share_out(
    module: Clip, group: ProcessGroup, device: torch.device
) -> tuple[Clip, ParameterShards]:
    """A copy of a CPU module divided over the processes' devices, and what this process holds of
    it. The module itself stays as it is."""
    mesh = init_device_mesh(device.type, (group.world_size,))
    copied = copy.deepcopy(module)
    kept_whole = {
        parameter
        for name, parameter in copied.named_parameters()
        if name in _OF_THE_LOSS or not parameter.dim()
    }
    for parameter in kept_whole:
        parameter.data = parameter.data.to(device)
    children = [part for part in copied.children() if next(part.parameters(), None) is not None]
    for part in (*blocks_of(copied), *children, copied):
        fully_shard(part, mesh=mesh, reshard_after_forward=True, ignored_params=kept_whole)
    for part in copied.modules():
        if isinstance(part, FSDPModule):  # gradients are those of the whole batch: sums, not means
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(enable=True)
    for encode in ("encode_image", "encode_text"):
        register_fsdp_forward_method(copied, encode)
    trained = {name: p for name, p in copied.named_parameters() if p.requires_grad}
    shared = {name: p for name, p in trained.items() if isinstance(p, DTensor)}
    return copied, ParameterShards(shared, group, module)


def blocks_of(module: nn.Module) -> Iterator[nn.Module]:
    """The blocks of the towers: what stands in lists of composite modules of one class, in the
    innermost such lists."""
    for part in module.children():
        is_list = isinstance(part, nn.ModuleList | nn.Sequential)
        inner = list(blocks_of(part))
        if inner:
            yield from inner
        elif is_list and _are_blocks(list(part.children())):
            yield from part.children()


def _are_blocks(parts: list[nn.Module]) -> bool:
    is_composite = all(next(part.children(), None) is not None for part in parts)
    has_weights = all(next(part.parameters(), None) is not None for part in parts)
    return len({type(part) for part in parts}) == 1 and is_composite and has_weights


def optimiser_state(
    optimiser: torch.optim.Optimizer, names: Mapping[int, str], shards: ParameterShards
) -> dict[str, Any]:
    """The optimiser's state as that of whole parameters, at the first process; a state of one
    element by element, beside numbers. names: the number of a parameter in the state → its name."""
    return _over(optimiser.state_dict(), names, shards.whole)


def state_of_parts(
    state: Mapping[str, Any], names: Mapping[int, str], shards: ParameterShards
) -> dict[str, Any]:
    """What `optimiser_state` gave, for the parts that this process holds."""
    return _over(state, names, shards.part)


def _over(
    state: Mapping[str, Any], names: Mapping[int, str], change: Callable[[str, Tensor], Tensor]
) -> dict[str, Any]:
    def changed(number: int, value: Any) -> Any:
        is_of_elements = isinstance(value, Tensor) and value.dim() > 0
        return change(names[number], value) if is_of_elements else value

    states = {
        number: {key: changed(number, value) for key, value in of_one.items()}
        for number, of_one in state["state"].items()
    }
    return {**state, "state": states}
