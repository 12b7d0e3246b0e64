"""How far the features of what was exported are from the model's, on the same samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fomo_dagster.errors import DataError
from fomo_dagster.exporting.samples import Samples
from fomo_dagster.models.backbones import Model

TOLERANCE = 1e-4  # of a component of features of length 1
_BATCH = 64


@dataclass(frozen=True)
class FeatureErrors:
    """The greatest difference of a component of L2-normalised features from the model's, over
    `image_count` images and `text_count` texts."""

    images: float
    texts: float
    image_count: int
    text_count: int

    @property
    def greatest(self) -> float:
        return max(self.images, self.texts)

    @classmethod
    def of(cls, found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> FeatureErrors:
        """Of L2-normalised features of images, (N, D), and of texts, (M, D)."""
        images, texts = (
            float((one - other).abs().max()) for one, other in zip(found, expected, strict=True)
        )
        return cls(images, texts, len(expected[0]), len(expected[1]))


@contextmanager
def on_cpu(model: Model) -> Iterator[Any]:
    """The model's module on the CPU in evaluation mode; as it was, afterwards."""
    in_training = [part for part in model.module.modules() if part.training]
    device = model.module.logit_scale.device
    model.module.cpu().eval()
    try:
        yield model.module
    finally:
        model.module.to(device)
        for part in in_training:
            part.training = True


def unit_features(module: Any, samples: Samples, whose: str) -> tuple[Tensor, Tensor]:
    """Features of the images, (N, D), and of the texts, (M, D), L2-normalised, in fp32. Raises
    `DataError` if one is not finite."""
    found = []
    with torch.inference_mode():
        for encode, batches in (
            (module.encode_image, torch.split(samples.images, _BATCH)),
            (module.encode_text, torch.split(samples.tokens, _BATCH)),
        ):
            blocks = [nn.functional.normalize(encode(batch).float(), dim=-1) for batch in batches]
            found.append(torch.cat(blocks))
    if not all(bool(one.isfinite().all()) for one in found):
        raise DataError(f"features of {whose} are not finite")
    return found[0], found[1]
