"""What each of several processes holds of a model's parameters: all of them, or some rows of each.

Elementwise work on weights (a step of AdamW, a pull, an average) is done on the rows that a process
holds, as if they were parameters. This module converts between rows and whole tensors. Which
parameters are divided, and how a model computes with them, is decided elsewhere
(`training.sharding`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from fomo_dagster.distributed.process_group import SINGLE_PROCESS, ProcessGroup


@dataclass(frozen=True)
class ParameterShards:
    """The parameters of one module. With several processes, all must call each method, in the same
    order. This base class divides nothing."""

    shared_out: Mapping[str, DTensor] = field(default_factory=dict)
    """Name → the trained parameter, of which each process holds its rows: the first dimension is
    cut as by `torch.chunk`."""
    group: ProcessGroup = SINGLE_PROCESS
    origin: nn.Module | None = None
    """The module whose weights were shared out, on the CPU, as it was; None: none were."""

    def held(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """The trained parameters of the module by name. Of divided ones, the rows that this process
        holds, in the same memory."""
        trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
        return {name: self._rows.get(name, parameter) for name, parameter in trained.items()}

    def take_gradients(self) -> None:
        """Move the gradients of divided parameters, which are summed over all processes, to the
        rows that are held."""
        for name, parameter in self.shared_out.items():
            gradient = parameter.grad
            if isinstance(gradient, DTensor):
                self._rows[name].grad = gradient.to_local()
            parameter.grad = None

    def part(self, name: str, whole: Tensor) -> Tensor:
        """The part of a parameter-shaped tensor that belongs to the rows held."""
        if name not in self.shared_out:
            return whole
        parts = whole.chunk(self.group.world_size)
        rank = self.group.rank
        return (parts[rank] if rank < len(parts) else whole[:0]).clone()

    def whole(self, name: str, part: Tensor) -> Tensor:
        """The whole tensor from each process's part: at the first process, on the CPU if the
        parameter is divided. The other processes get what they gave."""
        if name not in self.shared_out:
            return part
        like = self.shared_out[name]
        gathered = DTensor.from_local(
            part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
        ).full_tensor()
        return gathered.cpu() if self.group.is_main else part

    def total(self, numbers: Mapping[str, Tensor]) -> Tensor:
        """The sum of scalars, one per parameter, over everything that the processes hold of it."""
        if not self.shared_out:
            return torch.stack([*numbers.values()]).sum()
        shared = [number for name, number in numbers.items() if name in self.shared_out]
        own = [number for name, number in numbers.items() if name not in self.shared_out]
        zero = next(iter(numbers.values())).new_zeros(())
        of_all = torch.stack([zero, *shared]).sum()
        self.group.all_reduce_sum([of_all])
        return torch.stack([of_all, *own]).sum()

    @cached_property
    def _rows(self) -> dict[str, nn.Parameter]:
        return {
            name: nn.Parameter(parameter.to_local().detach())
            for name, parameter in self.shared_out.items()
        }


UNSHARDED = ParameterShards()
