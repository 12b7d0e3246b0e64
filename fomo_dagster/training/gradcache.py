"""The gradient of one contrastive batch, at once or in micro-batches.

GradCache (arXiv 2101.06983): the features of all micro-batches are computed without a graph, the
loss gives its gradient with respect to them, and a second pass carries that through the towers, one
micro-batch at a time. It is the gradient of the whole batch, not a mean over smaller ones, at the
price of a second forward pass of the trained towers.

Several processes do the same with their parts of the batch. Features without a graph are gathered,
every process computes the loss and its gradient with respect to them, each carries that of its own
rows through the towers, and the parameters' gradients are added up once, at the end. (PyTorch's DDP
would add them up after the first of several backward passes, and only if the towers ran through its
own `forward`.)

If weights are divided, each process carries gradients into the rows that it holds, and all make the
same number of passes (`training.sharding`).

A module with batch norms cannot have micro-batches or parts, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from fomo_dagster.distributed.parameter_shards import UNSHARDED, ParameterShards
from fomo_dagster.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from fomo_dagster.errors import InputError
from fomo_dagster.methods.preservation.hooks import (
    Batch,
    EmbeddedBatch,
    Objective,
    unscaled,
    zero_gradients,
)
from fomo_dagster.methods.trained_parameters.selecting import BATCH_NORMS
from fomo_dagster.models.backbones import Clip
from fomo_dagster.training.determinism import seed_device
from fomo_dagster.training.towers import Encode


@dataclass(frozen=True, kw_only=True)
class GradientPass:
    """What it takes to compute the gradient of a batch."""

    module: Clip
    device: torch.device
    normalise: Callable[[Tensor], Tensor]
    """uint8 pixels to what the image tower takes, on the device."""
    autocast: Callable[[], AbstractContextManager[None]]
    """Makes the context of the towers' forward pass; normalisation and loss are in fp32."""
    micro_batch_size: int | None
    """Samples whose activations are held at once; None: all that a process has."""
    compile_tower: Callable[[Encode], Encode] | None = None
    """Compiles the pass of a tower; None: it runs as it is."""
    group: ProcessGroup = SINGLE_PROCESS
    shards: ParameterShards = UNSHARDED

    def __post_init__(self) -> None:
        if self.micro_batch_size is None and self.group.is_single:
            return
        setting, value = "micro_batch_size", self.micro_batch_size
        if not self.group.is_single:
            setting, value = "processes", self.group.world_size
        for name, part in self.module.named_modules():
            if isinstance(part, BATCH_NORMS) and part.training:
                raise InputError(
                    f"execution.{setting} is {value}, but the model has a "
                    f"batch norm ({name}), whose output depends on the whole batch: leave it out"
                )

    def backward(
        self,
        batch: Batch,
        seed: int,
        objective: Objective,
        scale: Callable[[Tensor], Tensor] = unscaled,
    ) -> Tensor:
        """Add the objective's gradient, as `methods.preservation.Gradient` says."""
        if not self.group.is_single:
            return self._backward_together(batch, seed, objective, scale)
        size = self.micro_batch_size
        if size is None or size >= len(batch.images):
            image_features = self._encode(self._encode_image, batch.images, seed)
            text_features = self._encode(self._towers[1], batch.tokens, seed + 1)
            embedded = self._embedded(image_features, text_features, batch)
            return _backward(embedded, objective, scale)
        image_tower = _Tower(self._encode_image, torch.split(batch.images, size), seed)
        text_tower = _Tower(self._towers[1], torch.split(batch.tokens, size), seed + 1)
        image_features = self._cached(image_tower)
        text_features = self._cached(text_tower)
        parts = _backward(self._embedded(image_features, text_features, batch), objective, scale)
        self._carry(image_tower, image_features)
        self._carry(text_tower, text_features)
        return parts

    def _backward_together(
        self, batch: Batch, seed: int, objective: Objective, scale: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The same where each process has some of the rows; see the top of this file."""
        held = self.shards.held(self.module)
        trained = list(held.values())
        earlier = [p.grad for p in trained]
        zero_gradients(trained)
        seed, size = self.group.seed(seed), self.micro_batch_size or len(batch.images)
        towers = [
            _Tower(self._encode_image, self._pieces(batch.images, size), seed),
            _Tower(self._towers[1], self._pieces(batch.tokens, size), seed + 1),
        ]
        own = [self._features(tower) for tower in towers]  # (b, D) each
        rows = torch.arange(sum(batch.counts.values()))
        images, texts = (
            self.group.gather(f.detach(), rows).requires_grad_(f.requires_grad) for f in own
        )  # (B, D) each
        parts = _backward(self._embedded(images, texts, batch), objective, scale)
        if not self.group.is_main:
            zero_gradients(trained)  # those of the logit scale, which are the same for all
        for tower, features, of_all in zip(towers, own, (images, texts), strict=True):
            if of_all.grad is not None:
                gradient = of_all.grad[self.group.rank :: self.group.world_size]
                if features.is_leaf:
                    features.grad = gradient
                    self._carry(tower, features)
                else:
                    torch.autograd.backward(features, gradient)
        self.group.add_gradients([p for n, p in held.items() if n not in self.shards.shared_out])
        self.shards.take_gradients()
        for parameter, before in zip(trained, earlier, strict=True):
            if before is not None:
                parameter.grad = before if parameter.grad is None else parameter.grad + before
        return parts

    def _pieces(self, inputs: Tensor, size: int) -> Sequence[Tensor]:
        """The inputs, so many at once; for a model that is shared out, whose processes must compute
        together, as many pieces as any process has, the last ones empty."""
        pieces = torch.split(inputs, size)
        if not self.shards.shared_out:
            return pieces
        (most,) = self.group.all_reduce_max(len(pieces))
        return [*pieces, *[inputs[:0]] * (most - len(pieces))]

    def _features(self, tower: _Tower) -> Tensor:
        """(b, D) of a whole tower: with its graph where it is in one piece, else as `_cached`."""
        if len(tower.pieces) > 1:
            return self._cached(tower)
        return self._encode(tower.encode, tower.pieces[0], tower.seed)

    @torch.no_grad()
    def encoded(self, images: Tensor, tokens: Tensor, at_once: int) -> tuple[Tensor, Tensor]:
        """Of images (N, 3, H, W) and tokens (N, L), each (N, D), fp32, L2-normalised: without a
        gradient, nothing being random, the module in evaluation mode meanwhile. at_once: how many
        at most, where a micro-batch has not fewer."""
        size = min(at_once, self.micro_batch_size or at_once)
        training = [part for part in self.module.modules() if part.training]
        self.module.eval()
        try:
            of_images, of_texts = (
                torch.cat([self._normalised(tower, part) for part in self._pieces(inputs, size)])
                for tower, inputs in ((self._encode_image, images), (self._towers[1], tokens))
            )
        finally:
            for part in training:
                part.training = True
        return of_images, of_texts

    @cached_property
    def _towers(self) -> tuple[Encode, Encode]:
        """Of normalised images, and of tokens."""
        encode_image, encode_text = self.module.encode_image, self.module.encode_text
        if self.compile_tower is None:
            return encode_image, encode_text
        return self.compile_tower(encode_image), self.compile_tower(encode_text)

    def _embedded(
        self, image_features: Tensor, text_features: Tensor, batch: Batch
    ) -> EmbeddedBatch:
        scale, bias = self.module.logit_scale, getattr(self.module, "logit_bias", None)
        return EmbeddedBatch(image_features, text_features, scale, bias, batch, self.group)

    def _encode_image(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            images = self.normalise(images)
        return self._towers[0](images)

    def _encode(self, encode: Encode, inputs: Tensor, seed: int) -> Tensor:
        """Features (B, D), L2-normalised, in fp32 after autocast."""
        seed_device(self.device, seed)
        return self._normalised(encode, inputs)

    def _normalised(self, encode: Encode, inputs: Tensor) -> Tensor:
        if not len(inputs):  # a tower is never given nothing: one row is encoded in vain
            return self._normalised(encode, inputs.new_zeros(1, *inputs.shape[1:]))[:0]
        with self.autocast():
            features = encode(inputs.to(self.device, non_blocking=True))  # (B, D)
        if features.dtype in (torch.bfloat16, torch.float16):
            features = features.float()
        return nn.functional.normalize(features, dim=-1)

    def _cached(self, tower: _Tower) -> Tensor:
        """The features of all micro-batches (B, D), a leaf that wants its gradient where the tower
        is trained, which the graph of the first micro-batch tells."""
        pieces: list[Tensor] = []
        for piece, seed in tower:
            with torch.set_grad_enabled(not pieces):
                pieces.append(self._encode(tower.encode, piece, seed))
        is_trained = pieces[0].requires_grad
        pieces[0] = pieces[0].detach()
        return torch.cat(pieces).requires_grad_(is_trained)

    def _carry(self, tower: _Tower, features: Tensor) -> None:
        """Carry the gradient of the features (B, D) into the tower's parameters."""
        if features.grad is None:
            return
        gradients = torch.split_with_sizes(features.grad, [len(piece) for piece in tower.pieces])
        for (piece, seed), gradient in zip(tower, gradients, strict=True):
            torch.autograd.backward(self._encode(tower.encode, piece, seed), gradient)


def _backward(
    embedded: EmbeddedBatch, objective: Objective, scale: Callable[[Tensor], Tensor]
) -> Tensor:
    """The objective's gradient to what its features are leaves or results of."""
    loss, added = objective(embedded)
    torch.autograd.backward(scale(loss if added is None else loss + added))
    added = torch.zeros_like(loss) if added is None else added
    return torch.stack([loss.detach(), added.detach()])


@dataclass(frozen=True)
class _Tower:
    encode: Encode
    pieces: Sequence[Tensor]
    seed: int

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        """Each micro-batch with its seed; two towers whose seeds are neighbours share none."""
        return ((piece, self.seed + 2 * i) for i, piece in enumerate(self.pieces))
