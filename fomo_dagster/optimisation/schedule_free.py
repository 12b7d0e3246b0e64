"""Schedule-free AdamW (arXiv 2405.15682), as facebookresearch/schedule_free computes it.

pytorch_optimizer's corrects the second moment in place of the rate, so that the first steps decay
and count differently; hence one here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class ScheduleFreeSteps(torch.optim.Optimizer):
    """With learning rate γ, weight decay λ and t = 1, 2, …, gradients g are taken at y:

        v ← β₂ v + (1-β₂) g²,  γ_t = γ √(1-β₂ᵗ)
        z ← z - γ_t (g / (√v + ε) + λ y)
        x ← (1-c) x + c z,  c = γ_t² / Σ_(i≤t) γ_i²
        y = (1-β₁) z + β₁ x

    The parameters hold y; x follows from y and z, and takes their place by `put_average_in_place`.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(list(groups), {**defaults, "steps": 0, "sum_of_squares": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Replace y, which the gradients are of, by the next one."""
        for group in self.param_groups:
            kept, kept_square = group["betas"]
            group["steps"] += 1
            rate = group["lr"] * math.sqrt(1 - kept_square ** group["steps"])
            group["sum_of_squares"] += rate**2
            share = rate**2 / group["sum_of_squares"] if rate else 0.0
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["z"] = parameter.clone()
                    state["second_moment"] = torch.zeros_like(parameter)
                z, second, gradient = state["z"], state["second_moment"], parameter.grad
                second.mul_(kept_square).addcmul_(gradient, gradient, value=1 - kept_square)
                direction = gradient / second.sqrt().add_(group["eps"])
                direction.add_(parameter, alpha=group["weight_decay"])
                # y' = (1-β₁) z' + β₁ ((1-c) x + c z') with x of y and z, so that x is never held
                parameter.lerp_(z, share)
                parameter.add_(direction, alpha=rate * (kept * (1 - share) - 1))
                z.sub_(direction, alpha=rate)

    @torch.no_grad()
    def put_average_in_place(self) -> None:
        """Have the parameters hold x; there are no steps after that."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if state := self.state.get(parameter):
                    parameter.lerp_(state["z"], 1 - 1 / group["betas"][0])

    @torch.no_grad()
    def clamp(self, parameter: Tensor, low: float, high: float) -> None:
        """Keep a parameter within bounds, at every point that is held of it."""
        for tensor in (parameter, self.state.get(parameter, {}).get("z")):
            if tensor is not None:
                tensor.clamp_(low, high)
