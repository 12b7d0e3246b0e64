"""The contrastive loss of CLIP (arXiv 2103.00020)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import open_clip
from torch import Tensor

Loss: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of image features (N, D) and text features (N, D), both L2-normalised and fp32, and the logit
scale (the logarithm, as the model holds it): a scalar."""


def contrastive_loss() -> Loss:
    """The mean of the image→text and the text→image cross entropy over exp(logit_scale) · cosine,
    row i of the one belonging to row i of the other, by OpenCLIP's `ClipLoss`."""
    clip_loss = open_clip.ClipLoss(cache_labels=True)

    def loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
        value: Tensor = clip_loss(image_features, text_features, logit_scale.exp())
        return value

    return loss
