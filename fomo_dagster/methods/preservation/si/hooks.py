"""SI: anchors the weights that lowered the loss of earlier data (arXiv 1703.04200)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fomo_dagster.methods.preservation.hooks import StageContext, StageInputs
from fomo_dagster.methods.preservation.weight_penalty import ImportancePenalty, copies


class SIHooks(ImportancePenalty):
    """`strength · Σ_i Ω_i (θ_i - θ*_i)²`, θ* being the weights that the stage starts from.

    Along the way `ω_i ← ω_i - g_i · δ_i`, g being the gradient of the loss alone (before the
    penalty's is added and it is clipped) and δ what the update really changed (optimiser, weight
    decay and clamp). After the last step `Ω_i ← max(0, Ω_i + ω_i / (Δ_i² + damping))`, Δ leading
    from the start to the last step's weights, also where an average of the steps is kept. It is the
    sum that is cut, as by the authors (ganguli-lab/pathint), so that what raised the loss in one
    stage counts against what lowered it in those before: cutting each stage would add up noise.

    Beside the weights it holds five tensors of their size.
    """

    def __init__(
        self,
        stage_context: StageContext,
        stage_inputs: StageInputs,
        *,
        strength: float,
        damping: float,
    ) -> None:
        super().__init__(stage_context, 2 * strength, stage_inputs.carried)
        self._damping = damping
        self._last = copies(stage_context.trained)
        self._lowered = {name: torch.zeros_like(tensor) for name, tensor in self._last.items()}
        self._gradients: dict[str, Tensor] = {}

    def add_penalty_gradient(self) -> Tensor | None:
        trained = self.stage_context.trained
        self._gradients = {n: p.grad.clone() for n, p in trained.items() if p.grad is not None}
        return super().add_penalty_gradient()

    @torch.no_grad()
    def after_step(self) -> None:
        for name, parameter in self.stage_context.trained.items():
            change = parameter - self._last[name]
            if name in self._gradients:
                work = self._gradients[name] * change
                # an update that fp16 skipped has gradients that are infinite
                work.masked_fill_(change == 0, 0)
                self._lowered[name] -= work
            self._last[name].copy_(parameter)

    def state(self) -> dict[str, Any]:
        shards = self.stage_context.shards
        return {name: shards.whole(name, lowered) for name, lowered in self._lowered.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        for name, lowered in self._lowered.items():
            lowered.copy_(self.stage_context.shards.part(name, state[name]))
            self._last[name].copy_(self.stage_context.trained[name])

    def end_of_stage(self) -> dict[str, Tensor]:
        found = {}
        for name, lowered in self._lowered.items():
            change = self._last[name] - self.anchors[name]
            found[name] = lowered / (change.square() + self._damping)
        return {name: omega.clamp_(min=0) for name, omega in self.carry(1.0, found).items()}
