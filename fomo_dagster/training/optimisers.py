"""The optimiser of a stage; it starts anew at each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fomo_dagster.experiment.optimisers import AdamW, Fira, GaLore, Lion, Optimiser, Sgd


def create_optimiser(
    groups: Sequence[dict[str, Any]], settings: Optimiser
) -> torch.optim.Optimizer:
    """The declared optimiser over groups of fp32 parameters (`parameter_groups`). The learning rate
    is the schedule's to set.

    AdamW is PyTorch's fused one, the fastest on every device; the others are pytorch_optimizer's.
    Raises `InputError` for a low rank that is one to no parameter.
    """
    rate, decay = settings.learning_rate, settings.weight_decay
    match settings:
        case GaLore() | Fira():
            from fomo_dagster.training.low_rank import create_low_rank

            return create_low_rank(groups, settings)
        case AdamW(betas=betas, epsilon=epsilon):
            return torch.optim.AdamW(
                groups, lr=rate, betas=betas, eps=epsilon, weight_decay=decay, fused=True
            )
        case Sgd(momentum=momentum):
            from pytorch_optimizer import SGDW

            return SGDW(groups, lr=rate, momentum=momentum, weight_decay=decay)
        case Lion(betas=betas):
            from pytorch_optimizer import Lion as SignedMomentum

            return SignedMomentum(groups, lr=rate, betas=betas, weight_decay=decay)
    raise TypeError(f"{settings!r} is no declared optimiser")
