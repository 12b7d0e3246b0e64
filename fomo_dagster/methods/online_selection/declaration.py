"""Which samples of larger batches are trained on, as an experiment file says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from fomo_dagster.data.declarations import Declaration, one_of
from fomo_dagster.experiment.backbone import Backbone


class OnlineSelection(Declaration):
    """What all have; how one chooses is in `choosing.py`."""

    name: str
    share: float = Field(
        gt=0, lt=1, description="Of the samples that are drawn, those that are trained on."
    )


class RandomSelection(OnlineSelection):
    """Any of them: what the others are compared with."""

    name: Literal["random"]


class Referring(OnlineSelection):
    """Looks at a reference model."""

    reference: Backbone = Field(
        exclude=True,  # it is an asset of its own, whose identity is that of what depends on it
        description="Any OpenCLIP model, with an image size and a tokeniser of its own.",
    )


class Learnability(Referring):
    """Those that are hard for the learner and easy for a reference model (arXiv 2312.05328)."""

    name: Literal["learnability"]


class Jest(Referring):
    """Those that are so among each other, chunk by chunk (JEST, arXiv 2406.17711)."""

    name: Literal["jest"]
    chunks: int = Field(16, ge=1, description="In how many turns a batch is chosen.")


ONLINE_SELECTIONS = (RandomSelection, Learnability, Jest)

if TYPE_CHECKING:
    AnyOnlineSelection: TypeAlias = OnlineSelection
else:
    AnyOnlineSelection = one_of(ONLINE_SELECTIONS, "name")
