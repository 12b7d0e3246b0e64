"""The processes that train one stage together: who has which rows, and what they exchange.

Row i of a batch of B is that of process i mod n, so that each pool is spread evenly. What is
computed from the whole batch is computed by all of them alike, from features that were gathered.
How the processes are started is not decided here.
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
    """`world_size` processes of which this is the one with number `rank`; one by itself exchanges
    nothing. Where there are several, all must call each method alike, in the same order."""

    rank: int = 0
    world_size: int = 1
    control: Any = None
    """torch's group for tensors on the CPU, where that of the device cannot take them."""

    @property
    def is_main(self) -> bool:
        """Whether it is the one that writes and tells."""
        return self.rank == 0

    @property
    def is_single(self) -> bool:
        """Whether there is no other."""
        return self.world_size == 1

    def has(self, row: int) -> bool:
        """Whether it has that row of a batch."""
        return row % self.world_size == self.rank

    def mine(self, rows: Tensor) -> Tensor:
        """Of some rows of a batch (n,), int64, those that it has: their places in its part."""
        if self.is_single:
            return rows
        return rows[rows % self.world_size == self.rank] // self.world_size

    def seed(self, seed: int) -> int:
        """The seed of what is random in this process alone (dropout); the first keeps `seed`."""
        return seed if self.is_main else int(digest_of([seed, "process", self.rank])[:15], 16)

    def gather(self, own: Tensor, rows: Tensor) -> Tensor:
        """What the processes have of some rows of a batch (n,): (n, …), in the order of `rows`.

        own: that of `mine(rows)`, in their order, without a gradient.
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
        """As `gather`, of texts."""
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
        """Give each parameter the sum of its gradients in all processes; those that have none in
        any keep none."""
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
        """Of what is there of all rows of a batch (B, …), that of the rows that it has."""
        return whole[self.rank :: self.world_size]

    def all_reduce_max(self, *numbers: int) -> list[int]:
        """The highest that any process gives for each: what they all then agree on."""
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
