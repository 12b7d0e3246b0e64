"""The gradient of one contrastive batch, at once or in micro-batches.

GradCache (arXiv 2101.06983): the features of all micro-batches are computed without a graph, the
loss gives its gradient with respect to them, and a second pass carries that through the towers, one
micro-batch at a time. It is the gradient of the whole batch, not a mean over smaller ones, for the
price of a second forward pass of the towers that are trained.

One process. A module with batch norms has no such micro-batches, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fomo_dagster.errors import InputError
from fomo_dagster.methods.preservation import Batch, Embedded, Objective, unscaled
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
    """Samples whose activations are held at once; None: all."""
    compile_tower: Callable[[Encode], Encode] | None = None
    """Compiles the pass of a tower; None: it runs as it is."""

    def __post_init__(self) -> None:
        if self.micro_batch_size is None:
            return
        for name, part in self.module.named_modules():
            if isinstance(part, _BatchNorm) and part.training:
                raise InputError(
                    f"execution.micro_batch_size is {self.micro_batch_size}, but the model has a "
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

    @cached_property
    def _towers(self) -> tuple[Encode, Encode]:
        """Of normalised images, and of tokens."""
        encode_image, encode_text = self.module.encode_image, self.module.encode_text
        if self.compile_tower is None:
            return encode_image, encode_text
        return self.compile_tower(encode_image), self.compile_tower(encode_text)

    def _embedded(self, image_features: Tensor, text_features: Tensor, batch: Batch) -> Embedded:
        scale, bias = self.module.logit_scale, getattr(self.module, "logit_bias", None)
        return Embedded(image_features, text_features, scale, bias, batch)

    def _encode_image(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            images = self.normalise(images)
        return self._towers[0](images)

    def _encode(self, encode: Encode, inputs: Tensor, seed: int) -> Tensor:
        """Features (B, D), L2-normalised, in fp32 after autocast."""
        seed_device(self.device, seed)
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
        gradients = torch.split(features.grad, len(tower.pieces[0]))
        for (piece, seed), gradient in zip(tower, gradients, strict=True):
            torch.autograd.backward(self._encode(tower.encode, piece, seed), gradient)


def _backward(
    embedded: Embedded, objective: Objective, scale: Callable[[Tensor], Tensor]
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
