"""Replay with a loss of its own: ER (arXiv 1902.10486), DER and DER++ (arXiv 2004.07211).

With I and Tx the features of the image and text rows, `a` the logit scale and `L` the contrastive
loss, all three have `L` over the rows that are not of the buffer, and on those of the buffer

    ER      alpha · L
    DER     alpha · MSE
    DER++   alpha · MSE + beta · L

where MSE is the mean of the squared differences between the logits `exp(a) I Txᵀ` of the buffer's
rows among themselves and those of the features that were stored of them. A row's stored features
are those that the model had for sample and caption, the image not augmented, at the end of the
stage that brought them; its logits are measured at that model's temperature. Where SigLIP's loss is
trained with, the bias is part of the logits, and that model's of the stored ones. The first stage
has no buffer, and trains as if nothing was preserved.
"""

from __future__ import annotations

from torch import Tensor, nn

from fomo_dagster.methods.preservation.hooks import (
    EmbeddedBatch,
    StageContext,
    StageHooks,
    StageInputs,
)


class Replay(StageHooks):
    """See above: `of_loss` times L of the buffer's rows, `of_logits` times MSE."""

    def __init__(
        self,
        stage_context: StageContext,
        stage_inputs: StageInputs,
        *,
        of_loss: float,
        of_logits: float,
    ) -> None:
        super().__init__(stage_context)
        self._of_loss, self._of_logits = of_loss, of_logits
        self._replay_features = stage_inputs.replay_features

    def loss(self, embedded: EmbeddedBatch) -> tuple[Tensor, Tensor | None]:
        replayed = embedded.rows("buffer")
        if not len(replayed):
            return super().loss(embedded)
        loss = self._contrastive_of(embedded, embedded.rows("update", "pretraining"))
        images, texts = embedded.images[replayed], embedded.texts[replayed]
        added = images.new_zeros(())
        if self._of_loss:
            added = added + self._of_loss * self._contrastive_of(embedded, replayed)
        if self._of_logits:
            assert self._replay_features is not None
            old_images, old_texts, old_biases = self._replay_features(
                embedded.of_batch(embedded.batch.drawn, replayed)
            )
            likelihood, scale = self._likelihood, embedded.logit_scale.exp()
            logits = likelihood.logits(scale * images @ texts.T, embedded.logit_bias)  # (n, n)
            stored = likelihood.logits(old_images @ old_texts.T, old_biases[:, None])  # (n, n)
            added = added + self._of_logits * nn.functional.mse_loss(logits, stored.to(logits))
        return loss, added
