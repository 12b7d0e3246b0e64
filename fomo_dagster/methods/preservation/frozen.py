"""A model that is used while another one is trained, and never changed itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fomo_dagster.data.transforms import normalise
from fomo_dagster.methods.preservation.hooks import EmbeddedBatch, StageContext
from fomo_dagster.models.backbones import Model


class Frozen:
    """Features of a frozen model, in evaluation mode, on the device of a training.

    It computes in the training's precision, in pieces of the training's micro-batches. It may be of
    another architecture: images come as the trained model takes them, and are resized for this one.
    """

    def __init__(self, model: Model, stage_context: StageContext) -> None:
        self.model = model
        self._module = model.module.to(stage_context.device).eval().requires_grad_(False)
        self._trained_one = stage_context.model
        self._likelihood = stage_context.loss.likelihood
        self._device, self._autocast = stage_context.device, stage_context.autocast
        self._piece_size = stage_context.micro_batch_size

    @property
    def logit_scale(self) -> Tensor:
        """The logarithm, a scalar."""
        scale: Tensor = self._module.logit_scale
        return scale

    def logits(
        self, embedded: EmbeddedBatch, rows: Tensor | None = None, tokens: Tensor | None = None
    ) -> Tensor:
        """The logits, as the training's loss has them, of images to texts of n rows of a batch, or
        of all: (n, n), fp32. tokens: the texts of this process, where this model has others."""
        images, texts = self.features(embedded, rows, tokens)
        return self.compared(images, texts)

    def compared(self, features: Tensor, others: Tensor) -> Tensor:
        """The logits of some features (N, D) to others (M, D), of any model, at the temperature and
        with the bias of this one: (N, M)."""
        bias: Tensor | None = getattr(self._module, "logit_bias", None)
        return self._likelihood.logits(self.logit_scale.exp() * features @ others.T, bias)

    def features(
        self, embedded: EmbeddedBatch, rows: Tensor | None = None, tokens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Of the images and texts of n rows of a batch, or of all: each (n, D)."""
        batch = embedded.batch
        images = embedded.of_batch(batch.images, rows, self.images)
        texts = embedded.of_batch(batch.tokens if tokens is None else tokens, rows, self.texts)
        return images, texts

    def images(self, images: Tensor) -> Tensor:
        """Of (N, 3, H, W), uint8, or normalised fp32: (N, D), fp32, L2-normalised."""
        return self._encode(self._encode_image, images)

    def texts(self, tokens: Tensor) -> Tensor:
        """Of (N, L) tokens: (N, D), fp32, L2-normalised."""
        return self._encode(self._module.encode_text, tokens)

    def _encode_image(self, images: Tensor) -> Tensor:
        features: Tensor = self._module.encode_image(self._as_seen(images))
        return features

    def _as_seen(self, images: Tensor) -> Tensor:
        mine, other = self.model, self._trained_one
        if (mine.image_size, mine.mean, mine.std) == (other.image_size, other.mean, other.std):
            is_normalised = images.dtype != torch.uint8
            return images if is_normalised else normalise(images, mine.mean, mine.std)
        if images.dtype == torch.uint8:
            pixels = images.float().div_(255)
        else:
            mean, std = images.new_tensor([other.mean, other.std])[:, :, None, None]
            pixels = images * std + mean
        if mine.image_size != other.image_size:
            size = (mine.image_size, mine.image_size)
            resized = nn.functional.interpolate(
                pixels, size, mode=mine.interpolation, antialias=True
            )
            pixels = resized.clamp_(0, 1)  # bicubic interpolation overshoots
        mean, std = pixels.new_tensor([mine.mean, mine.std])[:, :, None, None]
        seen: Tensor = (pixels - mean) / std
        return seen

    @torch.no_grad()
    def _encode(self, encode: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        blocks = []
        for piece in torch.split(inputs, self._piece_size or len(inputs)):
            with self._autocast():
                features = encode(piece.to(self._device, non_blocking=True))
            if features.dtype in (torch.bfloat16, torch.float16):
                features = features.float()
            blocks.append(nn.functional.normalize(features, dim=-1))
        return torch.cat(blocks)
