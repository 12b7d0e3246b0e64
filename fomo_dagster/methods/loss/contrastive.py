"""The losses of a batch of pairs: CLIP's (arXiv 2103.00020) and SigLIP's (arXiv 2303.15343)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from open_clip.loss import ClipLoss as ClipSums
from open_clip.loss import SigLipLoss
from torch import Tensor, nn

from fomo_dagster.errors import InputError
from fomo_dagster.methods.loss.declaration import AnyLoss, ClipLoss
from fomo_dagster.methods.loss.likelihood import Likelihood, Sigmoid, Softmax
from fomo_dagster.models.backbones import Clip

Value: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Loss:
    """How far the pairs of a batch are from being told apart."""

    likelihood: Likelihood
    """What it makes of logits."""
    value: Value

    def __call__(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
    ) -> Tensor:
        """Of image features (N, D) and text features (N, D), both L2-normalised and fp32, row i of
        the one belonging to row i of the other; of the logit scale (the logarithm, as the model
        holds it) and, where the model has one, the bias of the logits: a scalar."""
        return self.value(image_features, text_features, logit_scale, logit_bias)


def contrastive_loss(settings: AnyLoss) -> Loss:
    """The declared loss, by OpenCLIP.

    clip: the mean of the image→text and the text→image cross entropy over exp(logit_scale) ·
    cosine; with label smoothing ε, an answer has the probability 1 - ε + ε / N and each other pair
    of its row ε / N. siglip: over all pairs, -log sigmoid(± (exp(logit_scale) · cosine + bias)),
    positive where they belong together, summed up and divided by N.
    """
    if isinstance(settings, ClipLoss):
        return Loss(Softmax(), _clip_loss(settings.label_smoothing))
    return Loss(Sigmoid(), _siglip_loss())


def check_goes_with(loss: Loss, module: Clip, model: str = "the model") -> None:
    """Raises `InputError` if the loss needs what the model does not have."""
    if isinstance(loss.likelihood, Sigmoid) and getattr(module, "logit_bias", None) is None:
        raise InputError(
            f"loss.name is siglip, but {model} has no logit_bias: take an architecture that has "
            "one (ViT-B-16-SigLIP), or give yours `init_logit_bias: -10` and train it from its "
            "beginning"
        )


def _clip_loss(label_smoothing: float) -> Value:
    made = ClipSums(cache_labels=True)

    def loss(
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None,  # the same for all answers of a row, and so without sense
    ) -> Tensor:
        both = made.get_logits(image_features, text_features, logit_scale.exp())  # (N, N) each
        answers = made.get_ground_truth(image_features.device, len(both[0]))
        by_image, by_text = (
            nn.functional.cross_entropy(logits, answers, label_smoothing=label_smoothing)
            for logits in both
        )
        return (by_image + by_text) / 2

    return loss


def _siglip_loss() -> Value:
    made = SigLipLoss()

    def loss(
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None,
    ) -> Tensor:
        value: Tensor = made(image_features, text_features, logit_scale.exp(), logit_bias)
        return value

    return loss
