"""How badly a model tells the texts of samples from those of others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ROWS = 1024  # images whose logits are held at once


def own_losses(images: Tensor, texts: Tensor, own: Sequence[Sequence[int]], scale: float) -> Tensor:
    """-log Σ_{j in own_i} softmax_j(scale · x_i · t_j), (N,) fp32: the image's loss of CLIP, among
    all texts instead of those of a batch.

    images: (N, D); texts: (M, D), all different; both L2-normalised, fp32. own: of each image, the
    rows of its texts, one at least. scale: exp(logit_scale).
    """
    found = []
    for top in range(0, len(images), ROWS):
        logits = scale * (images[top : top + ROWS] @ texts.T)  # (R, M)
        mine = torch.full_like(logits, -torch.inf)
        for row, places in enumerate(own[top : top + ROWS]):
            mine[row, list(places)] = logits[row, list(places)]
        found.append(logits.logsumexp(dim=1) - mine.logsumexp(dim=1))
    return torch.cat(found) if found else torch.zeros(0)
