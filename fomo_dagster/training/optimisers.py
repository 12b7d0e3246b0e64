"""The optimiser of a stage; it starts anew at each."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from fomo_dagster.experiment.training import Optimiser


def create_optimiser(
    parameters: Iterable[nn.Parameter], settings: Optimiser
) -> torch.optim.Optimizer:
    """AdamW over fp32 parameters, all of them decayed: biases, norms and the logit scale too, as
    the benchmark does (arXiv 2408.14471). The learning rate is the schedule's to set.

    The fused implementation is the fastest on every device, and reads nothing back from it.
    """
    return torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        fused=True,
    )
