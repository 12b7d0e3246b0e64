"""The node of the files of what is live under a release name: the forms that others load."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.exporting.registry import forms_named
from fomo_dagster.exporting.subject import Provenance
from fomo_dagster.graph.core.facts import ONLY, Details, Facts, FactsByKey
from fomo_dagster.graph.core.keys import RELEASES, release_files_key, release_key, shards_key
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Bullets, Shown
from fomo_dagster.graph.nodes.evaluation import EvaluationNode
from fomo_dagster.graph.work.histories import history_of
from fomo_dagster.releases.files import FILES, files_record, record_files
from fomo_dagster.releases.live import released_weights
from fomo_dagster.releases.records import Candidate, ReleaseLog
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from fomo_dagster.exporting.subject import Subject
    from fomo_dagster.graph.core.context import NodeContext

SUMMARY = "release.json"
"""Beside the files: `stage`, whose they are (null where nothing was live), and `said`, what an
export tells; `forms`, those that were written, and `left_out`, a sentence for each that the model
cannot have. Files from before any was left out have neither."""
_NOTHING = "nothing"  # in the place of weights


@dataclass(frozen=True)
class LiveDetails(Details):
    """The candidate that is live, if there is one."""

    candidate: Candidate | None = None


@dataclass(frozen=True, kw_only=True)
class ReleaseFilesNode(Node):
    """What is live, in the forms that the experiments of the name ask for.

    It is a function of the record of the release and of the forms, so that it is written again only
    when another release is live, or other forms are asked for. Nothing that changes in the project
    after a release was made changes its files.

    It is made by the process of the run, as it is about several experiments, and processes of their
    own know of one.
    """

    kind: ClassVar[str] = "release_files"
    group: ClassVar[str] = RELEASES
    tools: ClassVar[frozenset[str]] = frozenset({"openclip"})
    input_changes: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("weights", "evaluations", "card"), "another release is live"
    )
    name: str
    asked_by: Mapping[str, tuple[str, ...]]
    """Form → the experiments that ask for it."""
    evaluations: tuple[EvaluationNode, ...]
    """The last evaluation of each experiment whose stages may go live, which says how the samples
    are read that the forms are held against the model on."""

    @classmethod
    def of(
        cls,
        name: str,
        forms: Mapping[str, Sequence[str]],
        evaluations: Sequence[EvaluationNode],
    ) -> ReleaseFilesNode:
        """forms: experiment → those that it asks for."""
        known = forms_named(form for asked in forms.values() for form in asked)
        asked_by = {
            form.name: tuple(sorted(one for one, asked in forms.items() if form.name in asked))
            for form in known
        }
        return cls(
            key=release_files_key(name), name=name, asked_by=asked_by,
            evaluations=tuple(evaluations),
        )  # fmt: skip

    @property
    def forms(self) -> tuple[str, ...]:
        """Those that any experiment of the name asks for, in the order in which they are
        written."""
        return tuple(self.asked_by)

    @property
    def description(self) -> str:
        return f"What is live as {self.name}, as {', '.join(self.forms)}."

    @property
    def inputs(self) -> tuple[str, ...]:
        return ()

    @property
    def comes_after(self) -> tuple[str, ...]:
        return (release_key(self.name),)

    @property
    def declared(self) -> Mapping[str, Any]:
        return {"name": self.name, "forms": self.forms}

    @property
    def _live_key(self) -> str:
        return f"{release_key(self.name)}/live for {self.key}"

    def outside_facts(self, context: NodeContext) -> dict[str, Facts]:
        candidate = history_of(self.name, context).live_candidate
        version = _NOTHING if candidate is None else candidate.checkpoint
        return {self._live_key: Facts(version, LiveDetails(candidate))}

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        for form in forms_named(self.forms):
            form.check_packages()  # before what may go live is trained
        candidate = facts[self._live_key].of(LiveDetails).candidate
        if candidate is None:
            return {ONLY: Recipe(self.kind, self.version, {}, {"weights": _NOTHING})}
        forms = {form.name: form.version for form in forms_named(self.forms)}
        inputs = {
            "weights": candidate.checkpoint,
            "evaluations": dict(candidate.evaluations),
            "card": digest_of([asdict(_provenance(candidate)), dict(candidate.roles)]),
        }
        return {ONLY: Recipe(self.kind, self.version, {"forms": forms}, inputs)}

    def make(self, name: str, recipe: Recipe, folder: Path, context: NodeContext) -> None:
        checkpoint = recipe.inputs["weights"]
        if checkpoint == _NOTHING:
            _summarise(folder, None)
            return
        from fomo_dagster.exporting.telling import told_of
        from fomo_dagster.exporting.writing import write_forms

        candidate, weights = released_weights(context.home, self.name, checkpoint, self.key)
        subject = self._subject(candidate, weights, context)
        forms, left_out = list(recipe.parameters["forms"]), list[str]()

        def leave_out(form: str, error: InputError) -> None:
            # Another experiment's wish, or one from after the promotion, stops no other form.
            asking = ", ".join(self.asked_by.get(form, ()))
            left_out.append(
                f"{candidate.shown}, is not written as {form}, for which {asking} asks: {error}"
            )

        written = write_forms(forms, subject, folder / FILES, leave_out)
        _summarise(folder, candidate.shown, list(told_of(written)), list(written), left_out)

    def check(self, candidate: Candidate, context: NodeContext) -> None:
        """Raise `InputError` for a form that a candidate's own experiment asks for, and that its
        architecture cannot have."""
        own = [form for form, asking in self.asked_by.items() if candidate.experiment in asking]
        forms = [form for form in forms_named(own) if not form.fits_all]
        weights = context.store.open(*candidate.weights)
        if not forms or weights is None:  # whoever puts it live says so
            return
        subject = self._subject(candidate, weights, context)
        for form in forms:
            try:
                form.check(subject)
            except InputError as error:
                raise InputError(
                    f"{candidate.shown}, cannot be written as {form.name}, for which "
                    f"`release.forms` of {candidate.experiment} asks: {error}. Take "
                    f"{form.name} out of it"
                ) from error

    def _subject(self, candidate: Candidate, weights: Artifact, context: NodeContext) -> Subject:
        from fomo_dagster.graph.nodes.export_subject import subject

        there = {}
        for dataset, digest in candidate.evaluations.items():
            artifact = context.store.open(EvaluationNode.kind, digest)
            if artifact is None:
                raise InputError(
                    f"the evaluation of {candidate.shown}, on {dataset} ({digest}) is no longer in "
                    f"the store, and the files of {self.name} are held against it: `fomo run "
                    f"{candidate.experiment}` makes it again, if nothing of it changed since"
                )
            there[dataset] = artifact
        node = self._evaluated_alike(candidate, there, context)
        backbone = Backbone.model_validate(dict(candidate.backbone))
        roles = candidate.roles or node.roles
        return subject(node, weights, backbone, _provenance(candidate), there, roles, context)

    def _evaluated_alike(
        self, candidate: Candidate, evaluations: Mapping[str, Artifact], context: NodeContext
    ) -> EvaluationNode:
        """An experiment's evaluation that has the test samples and prompts of the candidate's."""
        reasons = []
        for node in sorted(self.evaluations, key=lambda n: n.experiment != candidate.experiment):
            try:
                facts = {shards_key(d): context.facts(shards_key(d)) for d in node.datasets}
            except InputError as error:
                reasons.append(str(error))
                continue
            recipes = node.recipes_of(candidate.checkpoint, facts)
            others = [d for d, one in evaluations.items() if not _is_alike(recipes.get(d), one)]
            if not others:
                return node
            reasons.append(f"{node.experiment} evaluates {', '.join(others)} otherwise")
        raise InputError(
            f"the files of {self.name} are held against the model on the samples that it was "
            f"released with ({candidate.shown}), which are not there as they were: "
            f"{'; '.join(reasons)}. Put back what was evaluated, or put a stage live that was "
            "evaluated as it is now"
        )

    def follow_up(self, outcome: Outcome, context: NodeContext) -> Iterator[str]:
        """Record where they are, and say which are not there."""
        log = ReleaseLog(context.home, self.name)
        number = log.read().released_as(_checkpoint(outcome))
        if number is not None:
            forms = self._written(outcome.artifacts[ONLY])
            if record_files(log, number, outcome.head.artifacts[ONLY], forms) is not None:
                yield from summary_of(outcome.artifacts[ONLY]).get("left_out", ())

    def is_followed_up(self, context: NodeContext) -> bool:
        history = history_of(self.name, context)
        head = context.heads.read(self.key)
        if history.live is None or head is None:
            return True
        record = files_record(history, history.live)
        return record is not None and record.files == head.artifacts[ONLY]

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        artifact = outcome.artifacts[ONLY]
        told = summary_of(artifact)
        if told["stage"] is None:
            return {"live": "nothing", "forms": "none"}
        history = ReleaseLog(context.home, self.name).read()
        number = history.released_as(_checkpoint(outcome))
        return {
            "live": told["stage"] if number is None else history.shown(number),
            "forms": ", ".join(self._written(artifact)) or "none",
            "files": artifact.folder / FILES,
            "written": Bullets((*told["said"], *told.get("left_out", ()))),
        }

    def _written(self, artifact: Artifact) -> tuple[str, ...]:
        """The forms that an artifact of this node has."""
        return tuple(summary_of(artifact).get("forms", self.forms))


def summary_of(artifact: Artifact) -> dict[str, Any]:
    """What `SUMMARY` says."""
    found: dict[str, Any] = json.loads(artifact.path(SUMMARY).read_text())
    return found


def _is_alike(recipe: Recipe | None, evaluation: Artifact) -> bool:
    """Whether an evaluation was of the samples and prompts of a recipe, by whichever code."""
    if recipe is None:
        return False
    was = evaluation.manifest["recipe"]
    return any(
        all(was[part] == now[part] for part in ("parameters", "inputs"))
        for now in (one.as_data() for one in (recipe, recipe.earlier) if one is not None)
    )


def _summarise(
    folder: Path, stage: str | None, said: Sequence[str] = (), forms: Sequence[str] = (),
    left_out: Sequence[str] = (),
) -> None:  # fmt: skip
    told = {"stage": stage, "said": said, "forms": forms, "left_out": left_out}
    (folder / SUMMARY).write_text(json.dumps(told))


def _checkpoint(outcome: Outcome) -> str:
    checkpoint: str = outcome.head.recipes[ONLY]["inputs"]["weights"]
    return checkpoint


def _provenance(candidate: Candidate) -> Provenance:
    if candidate.provenance is not None:
        return candidate.provenance
    return Provenance(
        experiment=candidate.experiment,
        stage=candidate.stage,
        backbone=str(candidate.backbone.get("name", "not recorded")),
        method="a method that was not recorded",
        foreign=("what it was trained on was not recorded when it was released",),
        digests={"weights": candidate.weights[1]},
    )
