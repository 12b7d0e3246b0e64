"""Transfer between two models of any architectures, without forgetting (arXiv 2310.17653).

Each image of a batch is learned from one of two models: from the teacher if it is more confident,
else from the weights that the stage starts from. So only what the teacher knows better is
transferred.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fomo_dagster.methods.loss.contrastive import check_goes_with
from fomo_dagster.methods.preservation.frozen import Frozen
from fomo_dagster.methods.preservation.hooks import (
    EmbeddedBatch,
    StageContext,
    StageHooks,
    StageInputs,
)


class TransferHooks(StageHooks):
    """Beside the contrastive loss over all rows, `strength · T² · mean over images of
    KL(softmax(z*_i / T) ‖ softmax(z_i / T))`, where z_i are the logits of image i to all texts of
    the batch, and z*_i the teacher's or the old self's.

    supervised: the teacher's where softmax(z_i)_i, the probability of the image's own text, is
    higher for it than for the old self; otherwise the teacher's where its max_j softmax(z_i)_j is.
    Where SigLIP's loss is trained with, the sigmoid of each pair stands for the softmax, the bias
    of the logits is part of them, and KL is the sum over an image's pairs.
    The teacher sees the same augmented pixels, resized to its size, and the same texts.
    """

    def __init__(
        self,
        stage_context: StageContext,
        stage_inputs: StageInputs,
        *,
        supervised: bool,
        strength: float,
        temperature: float,
    ) -> None:
        super().__init__(stage_context)
        assert stage_inputs.reference is not None
        self._supervised, self._strength, self._temperature = supervised, strength, temperature
        self._old = Frozen(stage_context.copy_of_start(), stage_context)
        teacher = stage_inputs.reference()
        check_goes_with(stage_context.loss, teacher.module, "the model of method.preserve.teacher")
        self._teacher = Frozen(teacher, stage_context)

    def loss(self, embedded: EmbeddedBatch) -> tuple[Tensor, Tensor | None]:
        loss, _ = super().loss(embedded)
        old = self._old.logits(embedded)  # (B, B)
        tokens = self._teacher.model.tokenize(embedded.batch.texts)
        teacher = self._teacher.logits(embedded, tokens=tokens)  # (B, B)
        knows_better = self._confidence(teacher) > self._confidence(old)  # (B,)
        target = torch.where(knows_better[:, None], teacher, old)
        student = self._likelihood.logits(
            embedded.logit_scale.exp() * embedded.images @ embedded.texts.T, embedded.logit_bias
        )  # (B, B)
        transferred = self._likelihood.divergences(student, target, self._temperature)
        return loss, self._strength * transferred.mean()

    def _confidence(self, logits: Tensor) -> Tensor:
        """(B, B) → (B,)."""
        probabilities = self._likelihood.probabilities(logits)
        if self._supervised:
            return probabilities.diagonal()
        return probabilities.amax(dim=1)
