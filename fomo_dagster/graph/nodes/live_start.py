"""The node of what was live when a stage was first trained, which it starts from ever after."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.graph.core.facts import ONLY, Details, Facts, FactsByKey
from fomo_dagster.graph.core.keys import release_key
from fomo_dagster.graph.nodes.learnt import stages_learnt
from fomo_dagster.graph.nodes.weights import WeightsNode
from fomo_dagster.graph.work.checkpoints import WEIGHTS
from fomo_dagster.graph.work.histories import history_of
from fomo_dagster.releases.live import released_weights
from fomo_dagster.releases.records import Candidate
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext


@dataclass(frozen=True, kw_only=True)
class StartDetails(Details):
    """number: of the release, None where it is θ₀. checkpoint: the data version of its weights.
    learnt: the stages before this one that it was trained on, counted from 1; None where nobody
    asked."""

    checkpoint: str
    number: int | None = None
    learnt: list[int] | None = None


@dataclass(frozen=True, kw_only=True)
class LiveStartNode(WeightsNode):
    """The weights of the release that was live, or of θ₀ where nothing was.

    Its data version is that of these weights, so that what is trained from them is the same as if
    it had started from their asset. It stays with them when another release goes live: or each
    release would have its own past trained again.
    """

    kind: ClassVar[str] = "live_start"
    details: ClassVar[type[Details]] = StartDetails
    tools: ClassVar[frozenset[str]] = frozenset({"safetensors"})
    input_changes: ClassVar[Mapping[str, str]] = {"weights": "it starts from other weights"}
    stage: int
    release: str
    backbone: Backbone
    base_key: str
    before_key: str
    """The candidate of the stage before, which may go live."""
    chunk_keys: tuple[str, ...]  # what stages 1..stage - 1 train on
    brought_keys: tuple[str, ...]  # the chunks that it is of

    @property
    def description(self) -> str:
        return f"The weights that stage {self.stage} starts from: what was live as {self.release}."

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.base_key,)

    @property
    def comes_after(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.before_key, *self.chunk_keys, *self.brought_keys)))

    def is_settled(self, context: NodeContext) -> bool:
        return self._settled(context) is not None

    def _settled(self, context: NodeContext) -> StartDetails | None:
        """What it started from, unless the experiment has another architecture since."""
        head = context.heads.read(self.key)
        if head is None:
            return None
        details = StartDetails.from_data(head.facts)
        if details.number is not None:
            releases = history_of(self.release, context).releases
            candidate = releases[details.number].candidate if details.number in releases else None
            if candidate is not None and not self._is_of_its_architecture(candidate):
                return None
        return details

    def _is_of_its_architecture(self, candidate: Candidate) -> bool:
        there = Backbone.model_validate(dict(candidate.backbone)).architecture
        return there == self.backbone.architecture

    @property
    def declared(self) -> Mapping[str, Any]:
        return {"release": self.release}

    @property
    def _live_key(self) -> str:
        return f"{release_key(self.release)}/live for {self.key}"

    def outside_facts(self, context: NodeContext) -> dict[str, Facts]:
        settled = self._settled(context)
        if settled is not None:
            if settled.number is not None:
                return {self._live_key: Facts(settled.checkpoint, settled)}
            return {}
        history = history_of(self.release, context)
        candidate = history.live_candidate
        if candidate is None:
            return {}
        if not self._is_of_its_architecture(candidate):
            there = Backbone.model_validate(dict(candidate.backbone)).architecture
            raise InputError(
                f"{self.experiment} starts from what is live as {self.release}, which is of "
                f"another architecture than its backbone ({candidate.shown}: {there!r}; "
                f"{self.backbone.architecture!r}): take that backbone, or another "
                "method.start_from"
            )
        learnt = stages_learnt(candidate, self.chunk_keys, self.brought_keys, context)
        details = StartDetails(number=history.live, checkpoint=candidate.checkpoint, learnt=learnt)
        return {self._live_key: Facts(candidate.checkpoint, details)}

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        live = facts.get(self._live_key)
        if live is None:
            told, weights = StartDetails(checkpoint=""), facts[self.base_key].data_version
        else:
            told, weights = live.of(StartDetails), live.data_version
        # What changes no weight: θ₀ and a release of θ₀ differ in the number alone.
        parameters: dict[str, Any] = {"number": told.number}
        if told.learnt is not None:
            parameters["learnt"] = told.learnt
        return {ONLY: Recipe(self.kind, self.version, parameters, {"weights": weights})}

    def remarks(self, facts: FactsByKey, context: NodeContext) -> Iterator[str]:
        if not self.is_settled(context):
            live = facts.get(self._live_key)
            number = None if live is None else live.of(StartDetails).number
            start = "θ₀, since nothing is" if number is None else f"release {number}, which is"
            yield (
                f"stage {self.stage} of {self.experiment} starts from {start} live as "
                f"{self.release}, unless a stage before it goes live first"
            )

    def predict(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts:
        checkpoint = recipes[ONLY].inputs["weights"]
        details = StartDetails(checkpoint=checkpoint, **recipes[ONLY].parameters)
        return Facts(checkpoint, details)

    def make(self, name: str, recipe: Recipe, folder: Path, context: NodeContext) -> None:
        if recipe.parameters["number"] is None:
            weights = context.artifact(self.base_key)
        else:
            checkpoint = recipe.inputs["weights"]
            _, weights = released_weights(context.home, self.release, checkpoint, self.key)
        try:
            os.link(weights.path(WEIGHTS), folder / WEIGHTS)
        except OSError:  # a file system without links, or another one
            shutil.copyfile(weights.path(WEIGHTS), folder / WEIGHTS)
