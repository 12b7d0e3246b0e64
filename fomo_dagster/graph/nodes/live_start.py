"""The node of what was live when a stage was first trained, which it starts from ever after."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.graph.core.facts import ONLY, Details, Facts, FactsByKey
from fomo_dagster.graph.core.keys import release_key
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.nodes.chunk import ChunkDetails
from fomo_dagster.graph.nodes.learnt import stages_learnt
from fomo_dagster.graph.nodes.weights import WeightsNode
from fomo_dagster.graph.work.checkpoints import WEIGHTS
from fomo_dagster.graph.work.histories import history_of
from fomo_dagster.releases.live import released_weights
from fomo_dagster.releases.records import Candidate
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.store.starts import KIND, share_start, shared_start, shared_starts

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext


@dataclass(frozen=True, kw_only=True)
class StartDetails(Details):
    """number: of the release, None where it is θ₀. checkpoint: the data version of its weights.
    learnt: the stages before this one that it was trained on, counted from 1; brings: [dataset,
    concept] of what its stage brought when it was chosen; None where nobody asked."""

    checkpoint: str
    number: int | None = None
    learnt: list[int] | None = None
    brings: list[list[str]] | None = None

    def is_of(self, concepts: Sequence[Sequence[str]]) -> bool:
        """Whether it was chosen for a stage that brings some of these, and not for another that had
        its number then."""
        if not self.brings or not concepts:  # nobody asked, or it is not known yet
            return True
        return not {tuple(one) for one in self.brings}.isdisjoint(map(tuple, concepts))


@dataclass(frozen=True, kw_only=True)
class LiveNowDetails(Details):
    """What is live now. misfit: why a stage cannot start from it; empty if it can."""

    number: int | None
    learnt: list[int]
    misfit: str


@dataclass(frozen=True, kw_only=True)
class LiveStartNode(WeightsNode):
    """The weights of the release that was live, or of θ₀ where nothing was.

    Its data version is that of these weights, so that what is trained from them is the same as if
    it had started from their asset. It stays with them when another release goes live: or each
    release would have its own past trained again.
    """

    kind: ClassVar[str] = KIND
    details: ClassVar[type[Details]] = StartDetails
    tools: ClassVar[frozenset[str]] = frozenset({"safetensors"})
    input_changes: ClassVar[Mapping[str, str]] = {"weights": "it starts from other weights"}
    parameter_changes: ClassVar[Mapping[str, str]] = {"brings": "its stage brings something else"}
    stage: int
    release: str
    backbone: Backbone
    base_key: str
    own_key: str
    """The chunk that the stage brings."""
    before_key: str
    """The candidate of the stage before, which may go live."""
    chunk_keys: tuple[str, ...]  # what stages 1..stage - 1 train on
    brought_keys: tuple[str, ...]  # the chunks that it is of

    @property
    def description(self) -> str:
        return f"The weights that stage {self.stage} starts from: what was live as {self.release}."

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.base_key, self.own_key)

    @property
    def comes_after(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.before_key, *self.chunk_keys, *self.brought_keys)))

    @property
    def declared(self) -> Mapping[str, Any]:
        return {"release": self.release}

    @property
    def _settled_key(self) -> str:
        return f"{release_key(self.release)}/settled for {self.key}"

    @property
    def _live_key(self) -> str:
        return f"{release_key(self.release)}/live for {self.key}"

    def outside_facts(self, context: NodeContext) -> dict[str, Facts]:
        found: dict[str, Facts] = {}
        history, head = history_of(self.release, context), context.heads.read(self.key)
        told = self._told_by_others(context) if head is None else head.facts
        if told is not None:
            details = StartDetails.from_data(told)
            past = None if details.number is None else history.releases.get(details.number)
            candidate = None if past is None else past.candidate
            is_known = head is not None or self._is_known(details, candidate)
            if is_known and (candidate is None or not self._misfit(candidate)):
                found[self._settled_key] = Facts(details.checkpoint, details)
        candidate = history.live_candidate
        if candidate is not None:
            misfit = self._misfit(candidate)
            learnt = stages_learnt(candidate, self.chunk_keys, self.brought_keys, context)
            details_now = LiveNowDetails(number=history.live, learnt=learnt, misfit=misfit)
            found[self._live_key] = Facts(candidate.checkpoint, details_now)
        return found

    def _told_by_others(self, context: NodeContext) -> Mapping[str, Any] | None:
        remote = context.store.remote
        if remote is None or self.key not in context.once("starts", lambda: shared_starts(remote)):
            return None
        return shared_start(self.key, remote)

    def _is_known(self, told: StartDetails, candidate: Candidate | None) -> bool:
        """Whether what another home started from is of the history that this one has. From θ₀ it
        started where nothing was live, as may be here."""
        if told.number is None:
            return True
        return candidate is not None and candidate.checkpoint == told.checkpoint

    def _misfit(self, candidate: Candidate) -> str:
        """Why a stage cannot start from a release; empty if it can."""
        there = Backbone.model_validate(dict(candidate.backbone)).architecture
        if there == self.backbone.architecture:
            return ""
        return (
            f"{self.experiment} starts from what is live as {self.release}, which is of "
            f"another architecture than its backbone ({candidate.shown}: {there!r}; "
            f"{self.backbone.architecture!r}): take that backbone, or another "
            "method.start_from"
        )

    def is_settled(self, facts: FactsByKey, context: NodeContext) -> bool:
        return self._settled(facts) is not None

    def _settled(self, facts: FactsByKey) -> StartDetails | None:
        """What it started from before, unless the experiment has another architecture since, or
        another stage has its number."""
        fact = facts.get(self._settled_key)
        settled = None if fact is None else fact.of(StartDetails)
        return settled if settled is not None and settled.is_of(self._brings(facts)) else None

    def _brings(self, facts: FactsByKey) -> list[list[str]]:
        """[dataset, concept] of its stage; empty if that is not known yet."""
        return facts[self.own_key].of(ChunkDetails).concepts

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        told, live = self._settled(facts), facts.get(self._live_key)
        if told is None:
            told = StartDetails(checkpoint="", brings=self._brings(facts))
            if live is not None:
                now = live.of(LiveNowDetails)
                if now.misfit:
                    raise InputError(now.misfit)
                told = StartDetails(
                    checkpoint=live.data_version, number=now.number, learnt=now.learnt,
                    brings=told.brings,
                )  # fmt: skip
        weights = facts[self.base_key].data_version if told.number is None else told.checkpoint
        # What changes no weight: θ₀ and a release of θ₀ differ in the number alone.
        parameters = told.as_data() | {"number": told.number}
        del parameters["checkpoint"]
        return {ONLY: Recipe(self.kind, self.version, parameters, {"weights": weights})}

    def remarks(self, facts: FactsByKey, context: NodeContext) -> Iterator[str]:
        if not self.is_settled(facts, context):
            live = facts.get(self._live_key)
            number = None if live is None else live.of(LiveNowDetails).number
            start = "θ₀, since nothing is" if number is None else f"release {number}, which is"
            yield (
                f"stage {self.stage} of {self.experiment} starts from {start} live as "
                f"{self.release}, unless a stage before it goes live first"
            )

    def follow_up(self, outcome: Outcome, context: NodeContext) -> Iterator[str]:
        """Tell the other homes, so that they start from the same."""
        share_start(outcome.head, context.store.remote)
        yield from ()

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
