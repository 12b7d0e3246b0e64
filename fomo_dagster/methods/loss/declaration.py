"""The declarations of losses over a batch of pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from fomo_dagster.data.declarations import Declaration, one_of


class ClipLoss(Declaration):
    """CLIP's cross entropy (arXiv 2103.00020): which text of the batch belongs to an image, and
    which image to a text."""

    name: Literal["clip"] = "clip"
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of each answer that is spread evenly over the whole batch.",
    )


class SiglipLoss(Declaration):
    """SigLIP's loss (arXiv 2303.15343): for each pair separately, whether it belongs together. It
    needs an architecture with a bias of the logits (`init_logit_bias`)."""

    name: Literal["siglip"]


LOSSES = (ClipLoss, SiglipLoss)

if TYPE_CHECKING:
    AnyLoss: TypeAlias = ClipLoss | SiglipLoss
else:
    AnyLoss = one_of(LOSSES, "name", "clip")
