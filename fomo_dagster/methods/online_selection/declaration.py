"""The declarations of online selection: which samples of a larger batch are trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from fomo_dagster.data.declarations import Declaration, one_of
from fomo_dagster.experiment.backbone import Backbone


class OnlineSelection(Declaration):
    """What every selection has; `choosing.py` implements them."""

    name: str
    share: float = Field(gt=0, lt=1, description="Share of the drawn samples that is trained on.")


class RandomSelection(OnlineSelection):
    """Any samples: the control for the others."""

    name: Literal["random"]


class Referring(OnlineSelection):
    """A selection that uses a reference model."""

    reference: Backbone = Field(
        exclude=True,  # it is an asset of its own, whose identity is that of what depends on it
        description="Any OpenCLIP model; it may have its own image size and tokeniser.",
    )


class Learnability(Referring):
    """The samples that are hard for the learner and easy for a reference model
    (arXiv 2312.05328)."""

    name: Literal["learnability"]


class Jest(Referring):
    """A batch that is learnable as a whole, chosen chunk by chunk (JEST, arXiv 2406.17711)."""

    name: Literal["jest"]
    chunks: int = Field(16, ge=1, description="Number of turns in which a batch is chosen.")


ONLINE_SELECTIONS = (RandomSelection, Learnability, Jest)

if TYPE_CHECKING:
    AnyOnlineSelection: TypeAlias = OnlineSelection
else:
    AnyOnlineSelection = one_of(ONLINE_SELECTIONS, "name")
