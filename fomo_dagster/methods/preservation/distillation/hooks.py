"""Distillation from an earlier model: LwF on new samples, ZSCL on pretraining samples.

`KL_T(t ‖ s) = T² · mean over rows of KL(p(t / T) ‖ p(s / T))` is the added term of both: the
papers' cross entropy less a constant, so that 0 means nothing was lost. p is the softmax over a
row, as in the papers. With SigLIP's loss, p is the sigmoid of each pair separately, logits include
the bias, and KL is the sum over the pairs of a row. Distillation from another backbone is not
covered (`preservation/transfer`).
"""

from __future__ import annotations

from torch import Tensor

from fomo_dagster.methods.preservation.frozen import Frozen
from fomo_dagster.methods.preservation.hooks import (
    EmbeddedBatch,
    StageContext,
    StageHooks,
    StageInputs,
)
from fomo_dagster.methods.preservation.weight_penalty import copies, pull

REFERENCE_POOL = "pretraining"


class _Distilling(StageHooks):
    """Hooks with a frozen teacher: the weights that the stage refers to."""

    def __init__(
        self,
        stage_context: StageContext,
        stage_inputs: StageInputs,
        *,
        strength: float,
        temperature: float,
    ) -> None:
        super().__init__(stage_context)
        assert stage_inputs.reference is not None
        self._strength, self._temperature = strength, temperature
        self._teacher = Frozen(stage_inputs.reference(), stage_context)


class LwFHooks(_Distilling):
    """Learning without forgetting (arXiv 1606.09282; for CLIP as in arXiv 2303.06628).

    On the rows of the update pool, with image and text features I and Tx, logit scale `a`, and a
    bar over what is the teacher's, it adds `strength · KL_T(exp(ā) Ī T̄xᵀ ‖ exp(a) I Txᵀ)` to the
    contrastive loss over all rows.
    """

    def loss(self, embedded: EmbeddedBatch) -> tuple[Tensor, Tensor | None]:
        loss, _ = super().loss(embedded)
        rows, likelihood = embedded.rows("update"), self._likelihood
        student = embedded.images[rows] @ embedded.texts[rows].T  # (n, n)
        distilled = likelihood.divergences(
            likelihood.logits(embedded.logit_scale.exp() * student, embedded.logit_bias),
            self._teacher.logits(embedded, rows),
            self._temperature,
        )
        return loss, self._strength * distilled.mean()


class ZSCLHooks(_Distilling):
    """Zero-shot continual learning (arXiv 2303.06628), except for its average of weights.

    On the rows of the pretraining pool, with a bar over what is the teacher's:
    `strength · (KL_T(exp(ā) Ī T̄xᵀ ‖ exp(ā) I T̄xᵀ) + KL_T(exp(ā) T̄x Īᵀ ‖ exp(ā) Tx Īᵀ))`,
    and `l2 · ‖θ - θ_start‖²` (without ½, as the authors' `--l2`), beside the contrastive loss over
    the other rows. The student's features are measured at the teacher's temperature and bias, so
    that its own stay free to be learnt. The authors' second term is of `T̄x Iᵀ`, the first one's
    matrix transposed, which leaves the text tower without a term; here each tower has its own.
    """

    def __init__(
        self,
        stage_context: StageContext,
        stage_inputs: StageInputs,
        *,
        strength: float,
        temperature: float,
        l2: float,
    ) -> None:
        super().__init__(stage_context, stage_inputs, strength=strength, temperature=temperature)
        self._l2 = l2
        self._trained, self._shards = stage_context.trained, stage_context.shards
        self._anchors = copies(stage_context.trained) if l2 > 0 else {}

    def loss(self, embedded: EmbeddedBatch) -> tuple[Tensor, Tensor | None]:
        learnt, rows = embedded.rows("update", "buffer"), embedded.rows(REFERENCE_POOL)
        loss = self._contrastive_of(embedded, learnt)
        images, texts = self._teacher.features(embedded, rows)
        logits, temperature = self._teacher.compared(images, texts), self._temperature
        of_images = self._teacher.compared(embedded.images[rows], texts)  # (n, n), as the others
        of_texts = self._teacher.compared(embedded.texts[rows], images)
        by_image = self._likelihood.divergences(of_images, logits, temperature)
        by_text = self._likelihood.divergences(of_texts, logits.T, temperature)
        return loss, self._strength * (by_image.mean() + by_text.mean())

    def add_penalty_gradient(self) -> Tensor | None:
        if self._l2 == 0:
            return None
        return pull(self._trained, self._anchors, None, 2 * self._l2, self._shards)
