"""What is minimised over a batch of pairs, as an experiment declares it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from fomo_dagster.data.declarations import Declaration, one_of


class ClipLoss(Declaration):
    """CLIP's (arXiv 2103.00020): which text of the batch belongs to an image, and which image to
    a text."""

    name: Literal["clip"] = "clip"
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of the answer that all pairs of a row have alike."
    )


class SiglipLoss(Declaration):
    """SigLIP's (arXiv 2303.15343): of every pair by itself, whether it is one. It needs an
    architecture with a bias of the logits (`init_logit_bias`)."""

    name: Literal["siglip"]


LOSSES = (ClipLoss, SiglipLoss)

if TYPE_CHECKING:
    AnyLoss: TypeAlias = ClipLoss | SiglipLoss
else:
    AnyLoss = one_of(LOSSES, "name", "clip")
