"""EWC: anchors the weights that earlier data determined well (arXiv 1612.00796), with one Fisher
information that is carried from stage to stage (online EWC, arXiv 1805.06370)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from fomo_dagster.methods.preservation.hooks import (
    Batch,
    EmbeddedBatch,
    StageContext,
    StageInputs,
    zero_gradients,
)
from fomo_dagster.methods.preservation.weight_penalty import ImportancePenalty
from fomo_dagster.store.digests import digest_of


class EWCHooks(ImportancePenalty):
    """`strength / 2 · Σ_i F_i (θ_i - θ*_i)²`; after the last step `F ← decay · F + F_stage`.

    θ* are the weights that the stage starts from. F is what earlier stages measured on their update
    pools, at the weights that each of them ended with.
    """

    def __init__(
        self,
        stage_context: StageContext,
        stage_inputs: StageInputs,
        *,
        strength: float,
        decay: float,
        samples: int,
        batch_size: int,
    ) -> None:
        super().__init__(stage_context, strength, stage_inputs.carried)
        assert stage_inputs.update is not None
        self._decay, self._samples, self._batch_size = decay, samples, batch_size
        self._update = stage_inputs.update

    def end_of_stage(self) -> dict[str, Tensor]:
        found = fisher(self.stage_context, self._update(self._batch_size, self._samples))
        return self.carry(self._decay, found)


def fisher(stage_context: StageContext, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """The diagonal of the Fisher information of each trained parameter, by name.

    In a batch of B pairs the model makes predictions k, as the declared loss has it. CLIP's makes
    2B: of each image's text among the B, and of each text's image, p_k being the softmax over
    exp(logit_scale) · cosine. SigLIP's makes B: for each image, of each of the B texts by itself,
    whether it is the image's own, p_k being the product of the sigmoids of ± (exp(logit_scale) ·
    cosine + logit_bias). F is the mean over all predictions of all batches of

        E_{y ~ p_k} [(∂ log p_k(y) / ∂θ)²].

    The answers y are drawn from the model, as the definition has it, and not the true ones. That
    makes it cheap, too: the gradients of predictions whose answers are drawn independently have
    means of zero, so that the square of their sum has the mean of the sum of their squares, and one
    gradient of each batch will do. The square of a batch's plain gradient, in its place, would come
    near the square of the mean gradient, which vanishes where training ends.

    The towers are in evaluation mode afterwards, and the gradients none.
    """
    stage_context.model.module.eval()
    trained = stage_context.trained
    key = ["fisher", stage_context.seed, stage_context.stage]
    random = torch.Generator().manual_seed(int(digest_of(key)[:15], 16))
    likelihood = stage_context.loss.likelihood

    def drawn(embedded: EmbeddedBatch) -> tuple[Tensor, None]:
        """-Σ_k log p_k(y_k), in the sum of which small gradients survive fp16, too."""
        similarities = embedded.logit_scale.exp() * embedded.images @ embedded.texts.T  # (B, B)
        return likelihood.negative_log_likelihood(
            likelihood.logits(similarities, embedded.logit_bias), random
        ), None

    sums = {name: torch.zeros_like(p, requires_grad=False) for name, p in trained.items()}
    predictions = 0
    for batch in batches:
        zero_gradients(trained.values())
        stage_context.gradient(batch, stage_context.seed, drawn)
        predictions += likelihood.predictions * sum(batch.counts.values())
        for name, parameter in trained.items():
            if parameter.grad is not None:
                sums[name].addcmul_(parameter.grad, parameter.grad)
    zero_gradients(trained.values())
    return {name: total / predictions for name, total in sums.items()}
