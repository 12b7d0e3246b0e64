"""The optimiser of a stage; it starts anew at each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fomo_dagster.experiment.optimisers import (
    Adafactor,
    AdamW,
    AdEMAMix,
    Adopt,
    Fira,
    GaLore,
    Lion,
    NAdam,
    Optimiser,
    Sgd,
)

_SMALLEST = (1e-15, 1e-3)  # of Adafactor: the root of ε₁, and ε₂


def create_optimiser(
    groups: Sequence[dict[str, Any]], settings: Optimiser
) -> torch.optim.Optimizer:
    """The declared optimiser over groups of fp32 parameters (`parameter_groups`). The learning rate
    is the schedule's to set.

    AdamW is PyTorch's fused one, the fastest on every device; NAdam and Adafactor are PyTorch's,
    too, and the others pytorch_optimizer's.
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
        case NAdam(betas=betas, epsilon=epsilon):
            return torch.optim.NAdam(
                groups, lr=rate, betas=betas, eps=epsilon, weight_decay=decay,
                decoupled_weight_decay=True,
            )  # fmt: skip
        case Adopt(betas=betas, epsilon=epsilon):
            from pytorch_optimizer import ADOPT

            return ADOPT(
                groups, lr=rate, betas=betas, eps=epsilon, weight_decay=decay,
                weight_decouple=True, clip_lambda=_clipped_at,
            )  # fmt: skip
        case AdEMAMix(betas=three, epsilon=epsilon, alpha=alpha, slow_warmup_steps=warmup):
            from pytorch_optimizer import AdEMAMix as TwoMeans

            return TwoMeans(
                groups, lr=rate, betas=three, eps=epsilon, weight_decay=decay,
                weight_decouple=True, alpha=alpha, t_alpha_beta3=warmup,
            )  # fmt: skip
        case Adafactor():
            return torch.optim.Adafactor(groups, lr=rate, eps=_SMALLEST, weight_decay=decay)
    raise TypeError(f"{settings!r} is no declared optimiser")


def _clipped_at(step: float) -> float:
    """t^¼ for the t-th update of ADOPT; the library counts the first gradient, which makes none."""
    return float((step - 1) ** 0.25)
