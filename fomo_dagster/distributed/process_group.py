"""The processes that train one stage together: which rows each has, and what they exchange.

Row i of a batch of B belongs to process i mod n, so each pool is spread evenly. What is computed
from the whole batch is computed by every process, from gathered features. How the processes are
started is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fomo_dagster.store.digests import digest_of

_NO_TEXT = b"\xff"  # a byte that UTF-8 does not have
_BUCKET_BYTES = 64 * 2**20  # of gradients that travel together; bounds what they are copied into


@dataclass(frozen=True)
class ProcessGroup:
    """`world_size` processes, of which this is number `rank`. A single process exchanges nothing.
    With several, all must call each method, in the same order."""

    rank: int = 0
    world_size: int = 1
    control: Any = None
    """torch's group for tensors on the CPU, where that of the device cannot take them."""

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    @property
    def is_single(self) -> bool:
        """Whether it is the only process."""
        return self.world_size == 1

    def has(self, row: int) -> bool:
        """Whether this process has that row of a batch."""
        return row % self.world_size == self.rank

    def mine(self, rows: Tensor) -> Tensor:
        """Of some rows of a batch (n,), int64, those that this process has: their places in its
        part."""
        if self.is_single:
            return rows
        return rows[rows % self.world_size == self.rank] // self.world_size

    def seed(self, seed: int) -> int:
        """The seed of what is random in this process only (dropout). The first process keeps
        `seed`."""
        return seed if self.is_main else int(digest_of([seed, "process", self.rank])[:15], 16)

    def gather(self, own: Tensor, rows: Tensor) -> Tensor:
        """Some rows of a batch (n,) from all processes: (n, …), in the order of `rows`.

        own: this process's part, that of `mine(rows)`, in order, without a gradient.
        """
        if self.is_single:
            return own
        owners = rows % self.world_size  # (n,)
        counts = torch.bincount(owners, minlength=self.world_size).tolist()
        sent = own.new_zeros(max(counts), *own.shape[1:])
        sent[: len(own)] = own
        parts = [torch.empty_like(sent) for _ in range(self.world_size)]
        dist.all_gather(parts, sent, group=self._group(own))
        whole = own.new_empty(len(rows), *own.shape[1:])
        for number, (part, count) in enumerate(zip(parts, counts, strict=True)):
            places = (owners == number).nonzero().squeeze(1).to(own.device)
            whole[places] = part[:count]
        return whole

    def gather_texts(self, own: Sequence[str], rows: Tensor) -> list[str]:
        """Like `gather`, for texts."""
        if self.is_single:
            return list(own)
        encoded = [text.encode() for text in own]
        (longest,) = self.all_reduce_max(max(map(len, encoded), default=0))
        padded = b"".join(text.ljust(longest, _NO_TEXT) for text in encoded)
        sent = torch.tensor(list(padded), dtype=torch.uint8).reshape(len(own), longest)
        return [bytes(row).rstrip(_NO_TEXT).decode() for row in self.gather(sent, rows).tolist()]

    def all_reduce_sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.is_single:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            dist.all_reduce(flat, group=self._group(flat))
            pieces = torch.split_with_sizes(flat, [tensor.numel() for tensor in bucket])
            for tensor, piece in zip(bucket, pieces, strict=True):
                tensor.copy_(piece.view_as(tensor))

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum each parameter's gradients over all processes. A parameter without a gradient in any
        process keeps none."""
        if self.is_single:
            return
        there = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
        dist.all_reduce(there, dist.ReduceOp.MAX, group=self.control)
        used = [p for p, is_there in zip(parameters, there.tolist(), strict=True) if is_there]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter, requires_grad=False)
        self.all_reduce_sum(p.grad for p in used if p.grad is not None)

    def part(self, whole: Tensor) -> Tensor:
        """This process's rows of something that covers all rows of a batch (B, …)."""
        return whole[self.rank :: self.world_size]

    def all_reduce_max(self, *numbers: int) -> list[int]:
        """The maximum over all processes for each, so that they agree."""
        if self.is_single:
            return list(numbers)
        told = torch.tensor(numbers)
        dist.all_reduce(told, dist.ReduceOp.MAX, group=self.control)
        highest: list[int] = told.tolist()
        return highest

    def _group(self, tensor: Tensor) -> Any:
        return self.control if tensor.device.type == "cpu" else None


SINGLE_PROCESS = ProcessGroup()


def _buckets(tensors: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """The tensors in order, in runs of one type that are not much larger than a bucket."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (size >= _BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel() * tensor.element_size()
    if bucket:
        yield bucket
