"""Which samples of larger batches are trained on, as an experiment file says it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, Tag

from fomo_dagster.data.declarations import Declaration, chosen_by
from fomo_dagster.experiment.backbone import Backbone


class OnlineSelection(Declaration):
    """What all have; how one chooses is the engine's (`methods/online_selection.py`)."""

    name: str
    share: float = Field(
        gt=0, lt=1, description="Of the samples that are drawn, those that are trained on."
    )


class RandomSelection(OnlineSelection):
    """Any of them: what the others are compared with."""

    name: Literal["random"]


class Learnability(OnlineSelection):
    """Those that are hard for the learner and easy for a reference model (arXiv 2312.05328)."""

    name: Literal["learnability"]
    reference: Backbone = Field(
        exclude=True,  # it is an asset of its own, whose identity is that of what depends on it
        description="Any OpenCLIP model, with an image size and a tokeniser of its own.",
    )


AnyOnlineSelection: TypeAlias = Annotated[
    Annotated[RandomSelection, Tag("random")] | Annotated[Learnability, Tag("learnability")],
    chosen_by("name"),
]
