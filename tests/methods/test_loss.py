"""The losses against plain float64 sums over pairs, and what they need of a model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from fomo_dagster.errors import InputError
from fomo_dagster.methods.loss.contrastive import check_goes_with, contrastive_loss
from fomo_dagster.methods.loss.declaration import AnyLoss, SiglipLoss
from fomo_dagster.models import backbones

SCALE, BIAS = math.log(7.0), -3.0
MODEL: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "layers": 1, "width": 16, "head_width": 8},
    "text_cfg": {"context_length": 6, "vocab_size": 12000, "layers": 1, "width": 16, "heads": 2},
}


def features() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    images, texts = (torch.randn(6, 5, generator=random).double() for _ in "it")
    return torch.nn.functional.normalize(images), torch.nn.functional.normalize(texts)


def value(declared: dict[str, Any], bias: float | None = None) -> float:
    loss = contrastive_loss(TypeAdapter(AnyLoss).validate_python(declared))
    scale = torch.tensor(SCALE, dtype=torch.float64)
    return float(loss(*features(), scale, None if bias is None else torch.tensor(bias).double()))


def cosines() -> NDArray[np.float64]:
    images, texts = (part.numpy() for part in features())
    found: NDArray[np.float64] = np.array([[float(i @ t) for t in texts] for i in images])
    return found


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_smoothed_answers_share_their_probability_with_all_pairs_of_their_row(
    smoothing: float,
) -> None:
    logits = 7.0 * cosines()
    total = 0.0
    for rows in (logits, logits.T):
        for i, row in enumerate(rows):
            for j, logit in enumerate(row):
                wanted = (1 - smoothing) * (i == j) + smoothing / len(row)
                total -= wanted * (logit - math.log(np.exp(row).sum())) / (2 * len(rows))
    assert value({"label_smoothing": smoothing}) == pytest.approx(total, rel=1e-12)
    assert value({"label_smoothing": smoothing}, bias=BIAS) == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("bias", [None, BIAS])
def test_siglip_asks_of_each_pair_by_itself(bias: float | None) -> None:
    total = 0.0
    for i, row in enumerate(7.0 * cosines() + (bias or 0.0)):
        for j, logit in enumerate(row):
            total += math.log1p(math.exp(-logit if i == j else logit)) / len(row)
    assert value({"name": "siglip"}, bias) == pytest.approx(total, rel=1e-12)


def test_siglip_needs_a_bias_of_the_logits() -> None:
    siglip = contrastive_loss(SiglipLoss(name="siglip"))
    with pytest.raises(InputError, match=r"no logit_bias: .* `init_logit_bias: -10`"):
        check_goes_with(siglip, backbones.create(MODEL, seed=0).module)
    check_goes_with(siglip, backbones.create(MODEL | {"init_logit_bias": -10}, seed=0).module)
