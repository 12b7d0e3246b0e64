"""O-LoRA: new LoRA adapters read other directions than earlier ones (arXiv 2310.14152).

The paper keeps the adapters of all stages. Here each stage's are merged into the weights that the
next one starts from, which is the same sum, and what is kept of them is M = Σ_k A_kᵀ A_k: it does
not grow with the stages.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fomo_dagster.errors import InputError
from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs
from fomo_dagster.methods.preservation.layer_inputs import of_the_first
from fomo_dagster.methods.preservation.lora_layers import A, carried_directions, lora_layers

_RANK = 1e-6  # eigenvalues of M below this share of the largest are rounding
_LEFT = 1e-3  # of the length of a row of A, at least, or nothing is left of it but rounding


class OLoRAHooks(StageHooks):
    """Adds `strength · Σ_k ‖A A_kᵀ‖² = strength · tr(A M Aᵀ)` of each layer with A (r, n). M (n, n)
    is of the stages before, and 0 at the first.

    Raises `InputError` for what a stage of other adapters left, and where A shall begin orthogonal
    to earlier ones that leave no direction.
    """

    def __init__(
        self,
        stage_context: StageContext,
        stage_inputs: StageInputs,
        *,
        strength: float,
        is_orthogonal_at_first: bool,
    ) -> None:
        super().__init__(stage_context)
        self._stage_context, self._strength = stage_context, strength
        self._layers = lora_layers(stage_context.model.module)
        self._moments = carried_directions(stage_context, stage_inputs.carried)
        if is_orthogonal_at_first:
            for name, moment in self._moments.items():
                self._begin_outside(name, moment)

    @torch.no_grad()
    def _begin_outside(self, name: str, moment: Tensor) -> None:
        shards = self._stage_context.shards
        parameter = self._stage_context.trained[name + A]
        # A shard's rows are projected one by one; whoever has none has nothing to look at.
        found = outside(parameter, of_the_first(held_directions(moment), self._stage_context.group))
        if bool((found.norm(dim=1) < _LEFT * parameter.norm(dim=1)).any()):
            rank = shards.shared_out.get(name + A, parameter).shape[0]
            raise InputError(
                f"method.preserve.begin_at is orthogonal, and the adapters of earlier stages leave "
                f"{name} none of its {len(moment)} directions for {rank} more: lower method.rank, "
                "or begin at random"
            )
        parameter.copy_(found * (parameter.norm(dim=1) / found.norm(dim=1))[:, None])

    @torch.no_grad()
    def add_penalty_gradient(self) -> Tensor | None:
        if not self._moments:
            return None
        penalties = {}
        for name, moment in self._moments.items():
            parameter = self._stage_context.trained[name + A]
            pull = parameter @ moment
            penalties[name + A] = self._strength * (pull * parameter).sum()
            gradient = 2 * self._strength * pull
            if parameter.grad is None:
                parameter.grad = gradient
            else:
                parameter.grad += gradient
        return self._stage_context.shards.total(penalties)

    @torch.no_grad()
    def end_of_stage(self) -> dict[str, Tensor]:
        left = {}
        for name in self._layers:
            part = self._stage_context.trained[name + A].detach()
            whole = self._stage_context.shards.whole(name + A, part).cpu()
            square = whole.T @ whole
            left[name] = self._moments[name].cpu() + square if self._moments else square
        return left


def held_directions(moment: Tensor) -> Tensor:
    """P (n, n) onto the rows of all A_k, of M (n, n); computed in float64."""
    values, vectors = torch.linalg.eigh(moment.double())
    held = vectors * (values > _RANK * values[-1])
    projection: Tensor = (held @ vectors.T).to(moment.dtype)
    return projection


def outside(rows: Tensor, projection: Tensor) -> Tensor:
    """A (r, n) without what lies in P."""
    return rows - rows @ projection
