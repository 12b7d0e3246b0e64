"""What each of several processes holds of a model's parameters: all of them, or some rows of each.

What is done to weights element by element (a step of AdamW, a pull, an average) is done to the rows
that a process holds, as if they were parameters; here is what it takes to have them and the whole
from each other. Which parameters are shared out, and how a model computes with them, is decided
elsewhere (`training.sharding`).
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
    """The parameters of one module; where there are several processes, all must call each method
    alike, in the same order. Without anything else, nothing is shared out."""

    shared_out: Mapping[str, DTensor] = field(default_factory=dict)
    """Name → the trained parameter, of which each process holds its rows: the first dimension is
    cut as by `torch.chunk`."""
    group: ProcessGroup = SINGLE_PROCESS
    origin: nn.Module | None = None
    """The module whose weights were shared out, on the CPU, as it was; None: none were."""

    def held(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """The trained parameters of the module by name, of those that are shared out the rows that
        this process holds, in the same memory."""
        trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
        return {name: self._rows.get(name, parameter) for name, parameter in trained.items()}

    def take_gradients(self) -> None:
        """Hand the gradients of what is shared out, which are those of all processes together, to
        the rows that are held."""
        for name, parameter in self.shared_out.items():
            gradient = parameter.grad
            if isinstance(gradient, DTensor):
                self._rows[name].grad = gradient.to_local()
            parameter.grad = None

    def part(self, name: str, whole: Tensor) -> Tensor:
        """Of a tensor in the shape of a parameter, what belongs to what is held of that."""
        if name not in self.shared_out:
            return whole
        parts = whole.chunk(self.group.world_size)
        rank = self.group.rank
        return (parts[rank] if rank < len(parts) else whole[:0]).clone()

    def whole(self, name: str, part: Tensor) -> Tensor:
        """The tensor of which each process has such a part: at the first one, on the CPU where the
        parameter is shared out. The others get what they gave."""
        if name not in self.shared_out:
            return part
        like = self.shared_out[name]
        gathered = DTensor.from_local(
            part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
        ).full_tensor()
        return gathered.cpu() if self.group.is_main else part

    def total(self, numbers: Mapping[str, Tensor]) -> Tensor:
        """The sum of scalars, one of each parameter: of all that processes hold of it."""
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
