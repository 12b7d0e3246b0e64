"""The optimiser of a stage; it starts anew at each."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from fomo_dagster.experiment.optimisers import AdamW, Fira, GaLore, Lion, Optimiser, Sgd


def create_optimiser(
    parameters: Iterable[nn.Parameter], settings: Optimiser
) -> torch.optim.Optimizer:
    """The declared optimiser over fp32 parameters, all of them decayed: biases, norms and the logit
    scale too, as the benchmark does (arXiv 2408.14471). The learning rate is the schedule's to set.

    AdamW is PyTorch's fused one, the fastest on every device; the others are pytorch_optimizer's.
    Raises `InputError` for a low rank that is one to no parameter.
    """
    rate, decay = settings.learning_rate, settings.weight_decay
    match settings:
        case GaLore() | Fira():
            from fomo_dagster.training.low_rank import create_low_rank

            return create_low_rank(parameters, settings)
        case AdamW(betas=betas, epsilon=epsilon):
            return torch.optim.AdamW(
                parameters, lr=rate, betas=betas, eps=epsilon, weight_decay=decay, fused=True
            )
        case Sgd(momentum=momentum):
            from pytorch_optimizer import SGDW

            return SGDW(parameters, lr=rate, momentum=momentum, weight_decay=decay)
        case Lion(betas=betas):
            from pytorch_optimizer import Lion as SignedMomentum

            return SignedMomentum(parameters, lr=rate, betas=betas, weight_decay=decay)
    raise TypeError(f"{settings!r} is no declared optimiser")
