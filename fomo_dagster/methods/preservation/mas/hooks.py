"""MAS: anchors the weights that the outputs are sensitive to (arXiv 1711.09601)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from fomo_dagster.data.transforms import normalise
from fomo_dagster.methods.preservation.hooks import Batch, StageContext, StageInputs
from fomo_dagster.methods.preservation.weight_penalty import ImportancePenalty


class MASHooks(ImportancePenalty):
    """`strength · Σ_i Ω_i (θ_i - θ*_i)²`; after the last step `Ω ← decay · Ω + Ω_stage`.

    θ* are the weights that the stage starts from.
    """

    def __init__(
        self,
        stage_context: StageContext,
        stage_inputs: StageInputs,
        *,
        strength: float,
        decay: float,
        samples: int,
    ) -> None:
        super().__init__(stage_context, 2 * strength, stage_inputs.carried)
        assert stage_inputs.pairs is not None
        self._decay, self._samples, self._pairs = decay, samples, stage_inputs.pairs

    def end_of_stage(self) -> dict[str, Tensor]:
        found = sensitivities(self.stage_context, self._pairs(self._samples))
        return self.carry(self._decay, found)


def sensitivities(stage_context: StageContext, pairs: Iterable[Batch]) -> dict[str, Tensor]:
    """The mean over pairs, batches of one, of `|∂(‖f(image)‖² + ‖g(text)‖²) / ∂θ|`, by name.

    f and g are the towers' outputs before they are normalised, for normalised ones have a constant
    length and no gradient. The absolute value is of each pair's gradient, as in the paper: in the
    gradient of a batch, what one sample asks for and another forbids would cancel out. So each pair
    has a backward pass of its own. What no output depends on, as the logit scale, has 0.
    Of several processes, each takes a share of the pairs.

    The towers are in evaluation mode afterwards, and the gradients none.
    """
    model, device, trained = stage_context.model, stage_context.device, stage_context.trained
    module = model.module.eval()
    sums = {name: torch.zeros_like(p, requires_grad=False) for name, p in trained.items()}
    count = 0
    for pair in pairs:
        images = pair.images.to(device)
        if images.dtype == torch.uint8:
            images = normalise(images, model.mean, model.std)
        with stage_context.autocast():
            outputs = (module.encode_image(images), module.encode_text(pair.tokens.to(device)))
        module.zero_grad()
        for output in outputs:
            if output.requires_grad:  # not of a tower that is locked
                output = output.float() if output.dtype != torch.float64 else output
                output.square().sum().backward()
        count += len(images)
        for name, parameter in trained.items():
            if parameter.grad is not None:
                sums[name] += parameter.grad.abs()
    module.zero_grad()
    group, pairs_of_all = stage_context.group, torch.tensor([count])
    group.all_reduce_sum([*sums.values(), pairs_of_all])
    return {name: total / pairs_of_all.item() for name, total in sums.items()}
