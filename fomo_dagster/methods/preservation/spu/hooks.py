"""SPU: the few weights that new data ask for most are trained (arXiv 2308.12462).

Which layers a stage looks at is what it trains: the paper's are the first of each MLP. The buffer
of earlier samples, which the paper trains on too, is the mixture's.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from fomo_dagster.errors import InputError
from fomo_dagster.methods.preservation.hooks import (
    Batch,
    EmbeddedBatch,
    StageContext,
    StageHooks,
    StageInputs,
    zero_gradients,
)
from fomo_dagster.methods.preservation.layer_inputs import evaluating, of_the_first


class SPUHooks(StageHooks):
    """Of each trained tensor of n weights, int(share · n) are trained: those with the largest

        |Σ over batches of the update pool of ∂L / ∂θ|,

    L being the contrastive loss at the weights that the stage starts from. All others stay as they
    are, bit for bit: their gradients are 0, and what the optimiser does to them otherwise, as by
    weight decay, is undone.

    Raises `InputError` where that leaves nothing to train.
    """

    def __init__(
        self,
        stage_context: StageContext,
        stage_inputs: StageInputs,
        *,
        share: float,
        samples: int,
        batch_size: int,
    ) -> None:
        super().__init__(stage_context)
        assert stage_inputs.update is not None
        self._trained = stage_context.trained
        scores = gradient_of(stage_context, stage_inputs.update(batch_size, samples))
        self._chosen = {
            name: _part(stage_context, name, scores[name], share) for name in self._trained
        }
        with torch.no_grad():
            self._start = {name: one.detach().clone() for name, one in self._trained.items()}
        counts = {n: chosen.sum().float() for n, chosen in self._chosen.items()}
        if not float(stage_context.shards.total(counts)):
            largest = max(one.numel() for one in self._trained.values())
            raise InputError(
                f"method.preserve.share is {share}, and the largest trained tensor has {largest} "
                "weights, so that none would be trained: take a larger share, or train more"
            )

    @torch.no_grad()
    def add_penalty_gradient(self) -> Tensor | None:
        for name, chosen in self._chosen.items():
            gradient = self._trained[name].grad
            if gradient is not None:
                gradient.masked_fill_(~chosen, 0)
        return None

    @torch.no_grad()
    def after_step(self) -> None:
        for name, chosen in self._chosen.items():
            parameter = self._trained[name]
            parameter.copy_(torch.where(chosen, parameter, self._start[name]))

    def end_of_stage(self) -> dict[str, Tensor]:
        """An average of steps, which is in the weights' place now, is of the chosen ones, too."""
        self.after_step()
        return {}


def gradient_of(stage_context: StageContext, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """The sum over batches of the gradient of the contrastive loss, by name; the model's modes stay
    as they are, and no gradients are left."""
    trained = stage_context.trained

    def summed(embedded: EmbeddedBatch) -> tuple[Tensor, None]:
        """Over the rows, in which small gradients survive fp16."""
        loss = stage_context.loss(
            embedded.images, embedded.texts, embedded.logit_scale, embedded.logit_bias
        )
        return len(embedded.images) * loss, None

    zero_gradients(trained.values())
    with evaluating(stage_context.model.module):
        for batch in batches:
            stage_context.gradient(batch, stage_context.seed, summed)
    found = {
        name: torch.zeros_like(one) if one.grad is None else one.grad.detach().clone()
        for name, one in trained.items()
    }
    zero_gradients(trained.values())
    return found


def chosen_of(scores: Tensor, share: float) -> Tensor:
    """Where the largest magnitudes are, of the same shape, bool: int(share · n) of n; of equal ones
    the first."""
    order = scores.abs().flatten().sort(descending=True, stable=True).indices
    chosen = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    chosen[order[: int(share * scores.numel())]] = True
    return chosen.reshape(scores.shape)


def _part(stage_context: StageContext, name: str, scores: Tensor, share: float) -> Tensor:
    """Of the whole tensor, the part that this process holds; the same choice in all of them."""
    shards, group = stage_context.shards, stage_context.group
    shape = shards.shared_out.get(name, scores).shape
    whole = shards.whole(name, scores)
    chosen = torch.zeros(shape, device=scores.device)
    if group.is_main:
        chosen.copy_(chosen_of(whole, share))
    return shards.part(name, of_the_first(chosen, group)) > 0
