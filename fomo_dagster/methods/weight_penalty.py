"""A pull of the weights towards where they were, and how strong it is for each of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fomo_dagster.methods.preservation import Beginning, Preservation


class WeightPenalty(Preservation):
    """`factor / 2 · Σ_i Ω_i (θ_i - θ*_i)²` over the trained parameters, beside the loss.

    anchors: θ* by name. importances: Ω by name, of the same shapes; None: 1 for every weight. Its
    gradient is added as it is, so that nothing of it goes through autocast or a loss scale.
    """

    def __init__(
        self,
        beginning: Beginning,
        factor: float,
        anchors: Mapping[str, Tensor],
        importances: Mapping[str, Tensor] | None,
    ) -> None:
        super().__init__(beginning)
        self._factor, self._anchors, self._importances = factor, anchors, importances
        self.trained = beginning.trained

    def penalise(self) -> Tensor:
        return pull(self.trained, self._anchors, self._importances, self._factor)


@torch.no_grad()
def pull(
    parameters: Mapping[str, nn.Parameter],
    anchors: Mapping[str, Tensor],
    importances: Mapping[str, Tensor] | None,
    factor: float,
) -> Tensor:
    """`factor / 2 · Σ_i Ω_i (θ_i - θ*_i)²`, a scalar; its gradient is added to the parameters'."""
    parts = []
    for name, parameter in parameters.items():
        difference = parameter - anchors[name]
        weighed = difference if importances is None else importances[name] * difference
        if parameter.grad is None:
            parameter.grad = factor * weighed
        else:
            parameter.grad.add_(weighed, alpha=factor)
        parts.append((weighed * difference).sum())
    return factor / 2 * torch.stack(parts).sum()


def copies(tensors: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """What the tensors hold now."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
