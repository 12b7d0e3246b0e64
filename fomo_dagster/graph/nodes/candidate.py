"""The node of a stage that is up for release: what the gates say of it, and what follows.

It is held against what is live when it is judged. Once a stage of the experiment was released, it
and those before it keep what they were held against, or each release would have all history judged
again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.release import Release
from fomo_dagster.graph.core.facts import Details, Facts, FactsByKey
from fomo_dagster.graph.core.keys import release_key, shards_key
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.settling import settled
from fomo_dagster.graph.core.shown import Bullets, Check, Checked, Shown
from fomo_dagster.graph.nodes.after_judging import AfterJudging, passes
from fomo_dagster.graph.nodes.details import SampleDetails
from fomo_dagster.graph.nodes.evaluated import evaluated
from fomo_dagster.graph.nodes.evaluation import EvaluationDetails, EvaluationNode
from fomo_dagster.graph.nodes.held_costs import HeldCosts
from fomo_dagster.graph.nodes.held_data import (
    OF_LEARNT,
    OF_STAGE,
    HeldData,
    learnt_near_duplicates_of,
    near_duplicates_of,
)
from fomo_dagster.graph.nodes.held_galleries import HeldGalleries
from fomo_dagster.graph.nodes.held_live import CandidateDetails, LiveDetails, live_facts
from fomo_dagster.graph.nodes.released_past import was_released
from fomo_dagster.graph.nodes.up_for_release import candidate_of
from fomo_dagster.graph.work.compared_costs import LATENCIES
from fomo_dagster.graph.work.histories import history_of
from fomo_dagster.releases.live import released_weights
from fomo_dagster.releases.records import Candidate, History, ReleaseLog
from fomo_dagster.releases.verdicts import Verdict
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.experiment.gallery import LoadedGallery
    from fomo_dagster.experiment.schema import Experiment
    from fomo_dagster.graph.core.context import NodeContext
    from fomo_dagster.releases.gates import GalleryDrift

GATES = "gates"  # the artifact of the verdicts; the others are evaluations of what is live
VERDICTS = "verdicts.json"
_LIVE = "live: {}"  # the artifact of what is live, on a dataset


@dataclass(frozen=True, kw_only=True)
class CandidateNode(Node):
    """What a stage deploys, held against what is live."""

    kind: ClassVar[str] = "candidate"
    details: ClassVar[type[Details]] = CandidateDetails
    tools: ClassVar[frozenset[str]] = frozenset({"duckdb"})
    input_changes: ClassVar[Mapping[str, str]] = {
        **EvaluationNode.input_changes,
        "evaluations": "its evaluations changed",
        "live": "another release is live",
        OF_STAGE: "its near duplicates changed",
        OF_LEARNT: "near duplicates of an earlier stage changed",
        "galleries": "a gallery changed, or how its drift is measured",
        LATENCIES: "it is timed against another architecture",
    }
    stage: int
    evaluation: EvaluationNode
    release: Release
    execution: Execution
    before_key: str | None
    """The candidate of the stage before, which is judged first."""
    data: HeldData
    settings: Experiment
    nodes: Mapping[str, Node] = field(compare=False, repr=False)
    """All of the graph, by which it is told what the weights were trained on."""
    is_last: bool

    @classmethod
    def of(
        cls, evaluation: EvaluationNode, settings: Experiment, before_key: str | None,
        data: HeldData, nodes: Mapping[str, Node], *, is_last: bool,
    ) -> CandidateNode:  # fmt: skip
        """settings: of an experiment with a release. nodes: all of the graph, once it is built."""
        release = settings.release
        assert release is not None
        return cls(
            key=f"{evaluation.experiment}/candidate_{evaluation.stage:03d}",
            experiment=evaluation.experiment,
            stage=evaluation.stage,
            evaluation=evaluation,
            release=release,
            execution=evaluation.execution,
            before_key=before_key,
            data=data,
            settings=settings,
            nodes=nodes,
            is_last=is_last,
        )

    @property
    def description(self) -> str:
        return f"What stage {self.stage} deploys, up for release as {self.release.name}."

    @property
    def inputs(self) -> tuple[str, ...]:
        gates, checkpoint = self.release.gates, self.evaluation.checkpoint_key
        weights = () if gates.galleries is None and gates.speed is None else (checkpoint,)
        shards = map(shards_key, self.evaluation.datasets)
        return (self.evaluation.key, *shards, *self.data.keys, *weights)

    @property
    def comes_after(self) -> tuple[str, ...]:
        return () if self.before_key is None else (self.before_key,)

    def is_settled(self, facts: FactsByKey, context: NodeContext) -> bool:
        history = history_of(self.release.name, context)
        return self._is_history(history, context) and context.heads.read(self.key) is not None

    def _is_history(self, history: History, context: NodeContext) -> bool:
        return was_released(
            str(self.experiment), self.stage, self._deployed_by_stage, history, context
        )

    @cached_property
    def _deployed_by_stage(self) -> dict[int, str]:
        return {
            node.stage: node.evaluation.checkpoint_key
            for node in self.nodes.values()
            if isinstance(node, CandidateNode) and node.experiment == self.experiment
        }

    @property
    def declared(self) -> Mapping[str, Any]:
        return {
            "release": self.release.name,
            "gates": self.release.gates.model_dump(mode="json", exclude_none=True),
            "roles": self.evaluation.roles,
        }

    @cached_property
    def _held(self) -> HeldGalleries | None:
        """The galleries that it is held against, where a gate is about them."""
        if self.release.gates.galleries is None:
            return None
        try:
            return HeldGalleries.of(self.release.name, self.nodes)
        except InputError as error:
            raise InputError(f"{self.experiment}: {error}") from error

    @property
    def _live_key(self) -> str:
        return f"{release_key(self.release.name)}/live"

    def outside_facts(self, context: NodeContext) -> dict[str, Facts]:
        history = history_of(self.release.name, context)
        number, head = history.live, context.heads.read(self.key)
        if head is not None and self._is_history(history, context):
            number = head.facts.get("reference")
        galleries: Mapping[str, str] = {}
        if self._held is not None:
            galleries = self._held.versions(context)
            if head is not None and self._is_history(history, context):
                galleries = {**galleries, **head.facts.get("galleries", {})}
        candidate = None if number is None else history.release(number).candidate
        return {self._live_key: live_facts(number, candidate, galleries)}

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        return self._recipes(facts, self._live_recipes(facts))

    def settled(self, facts: FactsByKey, context: NodeContext) -> dict[str, Recipe]:
        # What is live was evaluated by some way; what is judged is judged by that evaluation.
        held = {
            name: settled(recipe, self.key, _LIVE.format(name), context)
            for name, recipe in self._live_recipes(facts).items()
        }
        return self._recipes(facts, held)

    def _live_recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        """Dataset → how what is live is evaluated."""
        live = facts[self._live_key].of(LiveDetails).checkpoint
        return {} if live is None else self.evaluation.recipes_of(live, facts)

    def _recipes(self, facts: FactsByKey, held: Mapping[str, Recipe]) -> dict[str, Recipe]:
        if not self.settings.is_evaluated_on_arrivals and (said := self._absent(facts)):
            raise InputError(said[0])
        inputs: dict[str, Any] = {
            "evaluations": facts[self.evaluation.key].of(EvaluationDetails).evaluations
        }
        if held:
            inputs["live"] = {name: recipe.digest for name, recipe in held.items()}
        inputs |= self.data.inputs(facts)
        parameters: dict[str, Any] = {
            **self.declared,
            "tasks": {name: d.task for name, d in self.evaluation.datasets.items()},
            "number": facts[self._live_key].of(LiveDetails).number,
        }
        if self.data.leaves_out:
            parameters["deduplicate"] = True
        beside: dict[str, Recipe] = {}
        parameters |= self._costs.parameters(facts[self._live_key].of(LiveDetails).backbone)
        if (timed := self._costs.latencies(parameters)) is not None:
            beside[LATENCIES], inputs[LATENCIES] = timed, timed.digest
        if self._held is not None:
            checkpoint = facts[self.evaluation.checkpoint_key].data_version
            drifts = self._held.recipes(facts[self._live_key].of(LiveDetails).galleries, checkpoint)
            inputs["galleries"] = {key: recipe.digest for key, recipe in drifts.items()}
            beside |= drifts
            parameters["galleries"] = sorted(self._held.drifts)
        return {
            **{_LIVE.format(name): recipe for name, recipe in held.items()},
            **beside,
            GATES: Recipe(self.kind, self.version, parameters, inputs),
        }

    def remarks(self, facts: FactsByKey, context: NodeContext) -> Iterator[str]:
        if self.settings.is_evaluated_on_arrivals:
            for said in self._absent(facts):
                yield f"{said.rstrip('?')}. Nothing goes live before it arrives"

    def _absent(self, facts: FactsByKey) -> list[str]:
        """What is to be said of protected datasets and concepts that are not evaluated."""
        from fomo_dagster.releases.gates import absent

        protected = self.release.gates.protected
        if protected is None or not self.is_last:  # which has all datasets
            return []
        there = {
            name: facts[shards_key(name)].of(SampleDetails).concepts
            for name in self.evaluation.datasets
        }
        return [f"{self.experiment}: {said}" for said in absent(protected, there)]

    @property
    def galleries(self) -> tuple[LoadedGallery, ...]:
        held = () if self._held is None else self._held.drifts.values()
        return tuple(node.gallery.loaded for node in held)

    @property
    def needs(self) -> Needs:
        return Needs.of(self.execution)

    def needs_of(self, name: str) -> Needs | None:
        return None if name == GATES else self.needs  # judging computes nothing on a device

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any] | None:
        if self._held is not None and name in self._held.drifts:
            stage = self.evaluation
            return self._held.measure(
                name, recipe, stage.backbone, stage.checkpoint_key, self.execution, folder, context
            )
        if name == LATENCIES:
            live = self.outside_facts(context)[self._live_key].of(LiveDetails).checkpoint
            assert live is not None  # or there were nothing to time
            self._costs.time(recipe, self._live(live, context), self.execution, folder, context)
            return None
        if name != GATES:
            return self._evaluate_live(name, recipe, folder, context)
        from fomo_dagster.releases.gates import judge

        own, live = recipe.inputs["evaluations"], recipe.inputs.get("live")
        number = recipe.parameters["number"]
        verdicts = judge(
            self.release.gates, self.evaluation.roles, evaluated(self.evaluation, own, context),
            None if live is None else evaluated(self.evaluation, live, context), number,
            near_duplicates_of(recipe.inputs, context),
            learnt_near_duplicates_of(recipe.inputs, context),
            left_out="deduplicate" in recipe.parameters, costs=self._costs.found(recipe, context),
            drifts=self._drifts(recipe, context),
        )  # fmt: skip
        (folder / VERDICTS).write_text(json.dumps([asdict(one) for one in verdicts]))
        return None

    @property
    def _costs(self) -> HeldCosts:
        return HeldCosts(self.release.gates, self.evaluation)

    def _drifts(self, recipe: Recipe, context: NodeContext) -> dict[str, GalleryDrift] | None:
        """How far it is from what embedded the galleries, where a gate is about them."""
        if self._held is None:
            return None
        checkpoint = context.facts(self.evaluation.checkpoint_key).data_version
        return self._held.found(recipe.inputs["galleries"], checkpoint, context)

    def _evaluate_live(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        """Where what is live was never evaluated as this experiment asks."""
        backbone, weights = self._live(recipe.inputs["checkpoint"], context)
        evaluation = replace(self.evaluation, execution=self.execution)
        dataset = next(d for d in evaluation.datasets if _LIVE.format(d) == name)
        return evaluation.evaluate(dataset, recipe, weights, backbone, folder, context)

    def _live(self, checkpoint: str, context: NodeContext) -> tuple[Backbone, Artifact]:
        """The backbone and the weights of what is live."""
        candidate, weights = released_weights(context.home, self.release.name, checkpoint, self.key)
        return Backbone.model_validate(dict(candidate.backbone)), weights

    def predict(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts:
        number = recipes[GATES].parameters["number"]
        version = super().predict(recipes, context).data_version
        of_galleries = () if self._held is None else self._held.drifts
        galleries = {key: recipes[key].inputs["gallery"] for key in of_galleries if key in recipes}
        return Facts(version, CandidateDetails(reference=number, galleries=galleries))

    @property
    def table_names(self) -> tuple[str, ...]:
        return ("gates",)

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        import polars as pl

        from fomo_dagster.tables.schemas import SCHEMAS

        number = facts[self._live_key].of(LiveDetails).number
        rows = [
            {
                "experiment": self.experiment, "stage": self.stage, "release": self.release.name,
                "reference": number, **asdict(verdict),
            }
            for verdict in _verdicts(artifacts)
        ]  # fmt: skip
        yield "gates", pl.DataFrame(rows, schema=dict(SCHEMAS["gates"]))

    @property
    def checks(self) -> tuple[Check, ...]:
        asked = self.release.gates.asked
        return tuple(
            Check(f"gate_{name}", f"What the gate {name} of {self.release.name} asks.")
            for name in asked
        )

    def checked(self, outcome: Outcome, context: NodeContext) -> Iterator[Checked]:
        verdicts = _verdicts(outcome.artifacts)
        for name in self.release.gates.asked:
            own = [one for one in verdicts if one.gate.partition(":")[0] == name]
            details = {one.gate: one.said for one in own}
            yield Checked(f"gate_{name}", all(one.passed for one in own), details=details)

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        verdicts = _verdicts(outcome.artifacts)
        history = ReleaseLog(context.home, self.release.name).read()
        number = outcome.head.facts.get("reference")
        return {
            "passes": "yes" if passes(verdicts) else "no",
            "held_against": "nothing" if number is None else f"release {number}",
            "live_now": history.live_shown,
            "gates": Bullets(tuple(one.said for one in verdicts)),
        }

    def follow_up(self, outcome: Outcome, context: NodeContext) -> Iterator[str]:
        log = ReleaseLog(context.home, self.release.name)
        if self._is_history(log.read(), context):
            return
        yield from self._after_judging.follow_up(
            log, context.facts(self.evaluation.checkpoint_key).data_version,
            _verdicts(outcome.artifacts), outcome.head.facts.get("reference"),
            lambda: self.candidate(context),
        )  # fmt: skip

    def is_followed_up(self, context: NodeContext) -> bool:
        history = history_of(self.release.name, context)
        deployed = context.heads.read(self.evaluation.checkpoint_key)
        if self._is_history(history, context) or deployed is None:
            return True
        return self._after_judging.is_followed_up(
            history, deployed.data_version, lambda: verdicts_of(self, context)
        )

    @property
    def _after_judging(self) -> AfterJudging:
        return AfterJudging(self.key, self.release, str(self.experiment), self.stage, self.is_last)

    def waits(self, history: History, context: NodeContext) -> bool:
        """Whether it was held against what is live and passes, and somebody has to approve. θ₀
        waits for nobody, as where all that arrived was taken away."""
        if history.live is None or self.stage == 0 or self._is_history(history, context):
            return False
        reference = context.facts(self.key).of(CandidateDetails).reference
        return reference == history.live and passes(verdicts_of(self, context))

    def candidate(self, context: NodeContext) -> Candidate:
        """What would be released, as it is there now."""
        return candidate_of(self.evaluation, self.settings, self.nodes, context)


def verdicts_of(node: CandidateNode, context: NodeContext) -> list[Verdict]:
    """Those of the candidate as it was last materialised."""
    artifact = context.artifact(node.key, GATES)
    return _verdicts({GATES: artifact})


def _verdicts(artifacts: Mapping[str, Artifact]) -> list[Verdict]:
    data = json.loads(artifacts[GATES].path(VERDICTS).read_text())
    return [Verdict(**one) for one in data]
