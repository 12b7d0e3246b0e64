"""Puts a stage of an experiment live, by what was found of it."""

from __future__ import annotations

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.declared_datasets import load_datasets
from fomo_dagster.experiment.experiment_sets import load_experiment_set
from fomo_dagster.experiment.galleries import load_galleries
from fomo_dagster.graph.build.builder import build_graph
from fomo_dagster.graph.core.facts import identity
from fomo_dagster.graph.core.keys import release_files_key
from fomo_dagster.graph.nodes.candidate import CandidateNode, verdicts_of
from fomo_dagster.graph.nodes.held_live import CandidateDetails
from fomo_dagster.graph.nodes.release_files import ReleaseFilesNode
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.home import Home, project_folder
from fomo_dagster.releases.promoting import promote
from fomo_dagster.releases.records import Candidate, Record, ReleaseLog


def promote_stage(
    name_or_path: str, stage: int | None = None, *, first: bool = False, reason: str = ""
) -> Record:
    """Put a stage live, by default the last. Raises `InputError` as `releases.promoting.promote`,
    and where it was never judged, other weights were, or it cannot be written in a form for which
    the experiment asks."""
    project = project_folder()
    loaded = load_experiment_set(name_or_path, project, ()).only()
    experiment = loaded.experiment
    if experiment.release is None:
        raise InputError(
            f"{experiment.name} has no `release`, which names what its stages would be live as: "
            "declare it in the file"
        )
    galleries, _ = load_galleries(project, load_datasets(project))  # which a gate may ask
    graph = build_graph([loaded], galleries=galleries)
    stages = {n.stage: n for n in graph.nodes.values() if isinstance(n, CandidateNode)}
    number = max(stages) if stage is None else stage
    if number not in stages:
        raise InputError(f"{experiment.name} has stages 0 to {max(stages)}, and no stage {number}")
    node, context = stages[number], RunContext(graph, Home.from_environment())
    facts, head = context.facts(node.key), context.heads.read(node.key)
    assert head is not None
    reference = facts.of(CandidateDetails).reference
    log = ReleaseLog(context.home, experiment.release.name)
    history = log.read()
    if number == 0 and stage is None and history.live is not None:
        raise InputError(
            f"{experiment.name} has no stage but θ₀ now, so that this would put θ₀ live as "
            f"{log.name} in the place of release {history.live}: see what became of its data, or "
            f"say `fomo promote {experiment.name} --stage 0`"
        )
    live, checkpoint = history.live, context.facts(node.evaluation.checkpoint_key).data_version
    is_settled = node.is_settled(node.input_facts(context), context)
    is_past = is_settled and history.released_as(checkpoint) is None
    if live not in (None, reference) and is_past:
        held = "when nothing was live" if reference is None else f"against release {reference}"
        raise InputError(
            f"{experiment.name}, stage {number}, came before one that was released, and is judged "
            f"no more: it was last judged {held}, and release {live} is live"
        )
    recipes = node.settled(node.input_facts(context), context)
    if reference == live and head.digest != identity(recipes):
        raise InputError(
            f"{node.key} was judged by other evaluations than those of now: `fomo run "
            f"{experiment.name}` judges it again"
        )
    files = graph.nodes.get(release_files_key(log.name))

    def check(candidate: Candidate) -> None:
        if isinstance(files, ReleaseFilesNode):
            files.check(candidate, context)

    return promote(
        log, node.candidate(context), verdicts_of(node, context), reference, "manual",
        first=first, reason=reason, check=check,
    )  # fmt: skip
