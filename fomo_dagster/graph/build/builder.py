"""From experiments to the graph of nodes that they need, shared where they declare the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fomo_dagster.collecting import uncollected
from fomo_dagster.errors import FomoError
from fomo_dagster.experiment.comparison import LoadedComparison
from fomo_dagster.experiment.comparisons import load_comparisons
from fomo_dagster.experiment.experiment_sets import ExperimentSet, Trouble, attempted, load_all
from fomo_dagster.experiment.galleries import load_galleries
from fomo_dagster.experiment.gallery import LoadedGallery
from fomo_dagster.experiment.loading import Loaded
from fomo_dagster.experiment.names import SAFE_NAME
from fomo_dagster.experiment.overview import overview
from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.graph.build.code_versions import CodeVersions
from fomo_dagster.graph.build.declared_comparisons import comparison_nodes
from fomo_dagster.graph.build.declared_releases import check_forms, release_nodes
from fomo_dagster.graph.build.declared_streams import (
    first_evaluated,
    roles_of,
    viewed,
    with_stream_read,
)
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.build.names import ConflictError
from fomo_dagster.graph.build.training_nodes import TrainingNodes
from fomo_dagster.graph.build.weights_over_time import WeightsOverTime
from fomo_dagster.graph.nodes.budget import budget_of
from fomo_dagster.graph.nodes.candidate import CandidateNode
from fomo_dagster.graph.nodes.evaluation import EvaluationNode
from fomo_dagster.graph.nodes.gallery import GalleryNode
from fomo_dagster.graph.nodes.gallery_drift import GalleryDriftNode
from fomo_dagster.graph.nodes.gallery_index import GalleryIndexNode
from fomo_dagster.graph.nodes.held_data import HeldData
from fomo_dagster.graph.nodes.kept import KeptNode
from fomo_dagster.graph.nodes.leaderboard import LeaderboardNode
from fomo_dagster.graph.nodes.live_start import LiveStartNode
from fomo_dagster.graph.nodes.measures.registry import MEASURES
from fomo_dagster.graph.nodes.summaries.registry import SUMMARIES
from fomo_dagster.graph.nodes.summaries.summary import Evaluated
from fomo_dagster.graph.work.left_towers import LeftTowers


def build_graph(
    loaded: Sequence[Loaded],
    others: Iterable[Loaded] = (),
    also_scored: Iterable[str] = (),
    comparisons: Iterable[LoadedComparison] = (),
    galleries: Iterable[LoadedGallery] = (),
) -> Graph:
    """The graph of some experiments, and of others as far as they can coexist with them.

    also_scored: names of further experiments, whose scores the leaderboard shows if they exist.
    comparisons: of these experiments, as far as all that one is about can be part of the graph.
    galleries: as far as their datasets are declared as the experiments declare them.
    Raises `InputError` if one of the former names a dataset that does not exist, declares something
    else than another under a shared name, trains on a dataset that is held out, and the like. If
    one of the others does, it is a trouble of the graph.
    """
    builder = _Builder()
    for one in loaded:
        builder.add_experiment(one)
    for one in others:
        builder.try_experiment(one)
    troubled = [trouble.name for trouble in builder.troubles]
    names = sorted({*builder.experiments, *troubled, *also_scored})
    builder.experiment = ""
    for comparison in comparisons:
        builder.try_comparison(comparison)
    builder.add_releases()
    for gallery in galleries:
        builder.try_gallery(gallery)
    builder.add(LeaderboardNode.of(names, builder.nodes.values()))
    return builder.graph()


@uncollected()
def build_project(project: Path, experiment_set: ExperimentSet | None = None) -> Graph:
    """The graph of all experiments of a project, as far as they can coexist in it, of its
    comparisons, with the shipped experiments that these are about, and of its galleries.

    What is wrong with the others is in its `troubles`; nothing is raised. experiment_set: the one
    that a command is about, which the others must fit.
    """
    declared = load_all(project)
    comparisons, uncompared = load_comparisons(project, declared)
    members = experiment_set.members if experiment_set is not None else ()
    if experiment_set is not None and experiment_set.comparison is not None:
        name = experiment_set.comparison.reference
        comparisons = [one for one in comparisons if one.reference != name]
        comparisons.append(experiment_set.comparison)
        uncompared = [one for one in uncompared if one.name != name]
    galleries, unembedded = load_galleries(project, declared.datasets)
    if experiment_set is not None and experiment_set.gallery is not None:
        name = experiment_set.gallery.reference
        galleries = [one for one in galleries if one.reference != name]
        galleries.append(experiment_set.gallery)
        unembedded = [one for one in unembedded if one.name != name]
    found: dict[tuple[Path, str], Loaded] = {}
    for one in (*members, *declared.experiments, *(m for c in comparisons for m in c.members)):
        found.setdefault((one.path, one.experiment.name), one)
    others = list(found.values())[len(members) :]
    troubles = [
        trouble
        for trouble in declared.troubles
        if experiment_set is None
        or (trouble.path, trouble.sweep) != (experiment_set.path, experiment_set.sweep)
    ]
    troubles += [*uncompared, *unembedded]
    troubles += experiment_set.troubles if experiment_set is not None else ()
    named = [trouble.name for trouble in troubles if SAFE_NAME.fullmatch(trouble.name)]
    graph = build_graph((), [*members, *others], named, comparisons, galleries)
    if any(isinstance(trouble.error, ConflictError) for trouble in graph.troubles):
        # What was changed last is what is wrong; experiments that stood there before go on.
        order = [*members, *sorted(others, key=_last_change)]
        tried = build_graph((), order, named, comparisons, galleries)
        wrong = [trouble.loaded for trouble in tried.troubles]
        good = [one for one in (*members, *others) if one not in wrong]
        named += [trouble.name for trouble in tried.troubles if trouble.loaded is not None]
        built = build_graph((), good, named, comparisons, galleries)
        graph = replace(built, troubles=tried.troubles)
    return replace(
        graph,
        troubles=(*troubles, *graph.troubles),
        wrong_datasets=tuple(declared.datasets.troubles),
    )


def _last_change(loaded: Loaded) -> int:
    try:
        return loaded.path.stat().st_mtime_ns
    except OSError:
        return 0


class _Builder(TrainingNodes):
    def __init__(self) -> None:
        super().__init__()
        self.experiments: dict[str, Experiment] = {}
        self.loaded: dict[str, Loaded] = {}
        self.growing: dict[str, Path] = {}
        self.sweeps: dict[str, tuple[str, ...]] = {}
        self.galleries: dict[str, LoadedGallery] = {}
        self.troubles: list[Trouble] = []

    def graph(self) -> Graph:
        declared: dict[str, Loaded | LoadedGallery] = {**self.loaded, **self.galleries}
        owners = {key: declared[name] for key, name in self.owners.items() if name}
        return Graph(
            self.sources, self.nodes, CodeVersions(self.nodes), self.experiments, self.growing,
            self.sweeps, owners, self.loaded, tuple(self.troubles),
        )  # fmt: skip

    def try_experiment(self, loaded: Loaded) -> None:
        """Add an experiment, or else nothing of it but the trouble that it is in."""
        whole: list[dict[str, Any]] = [
            self.sources, self.nodes, self.owners, self.loaded, self.names.keys,
        ]  # fmt: skip
        lengths = [len(part) for part in whole]
        error = attempted(lambda: self.add_experiment(loaded, look_for_weights=True), loaded.path)
        if isinstance(error, FomoError):
            for part, length in zip(whole, lengths, strict=True):
                while len(part) > length:
                    part.popitem()
            name, sweep = loaded.experiment.name, loaded.sweep
            self.troubles.append(Trouble(name, loaded.path, error, sweep, loaded))

    def try_comparison(self, comparison: LoadedComparison) -> None:
        """Add a comparison, or else the trouble that it is in."""

        def add() -> None:
            nodes = comparison_nodes(comparison, self.nodes, self.troubles)
            self.names.claim_job(comparison)
            for node in nodes:
                self.add(node)

        error = attempted(add, comparison.path)
        if isinstance(error, FomoError):
            self.troubles.append(Trouble(comparison.reference, comparison.path, error))

    def try_gallery(self, gallery: LoadedGallery) -> None:
        """Add a gallery, or else the trouble that it is in."""

        def add() -> None:
            self.names.claim_job(gallery)
            name = gallery.declared.dataset
            self.add_declared(name, gallery.dataset, gallery.base, gallery.reference)
            node = GalleryNode.of(gallery)
            self.add(node)
            for beside in (GalleryIndexNode.of(node), GalleryDriftNode.of(node)):
                if beside is not None:
                    self.add(beside)

        self.experiment = gallery.reference  # the owner of what it alone needs
        self.galleries[gallery.reference] = gallery
        error = attempted(add, gallery.path)
        self.experiment = ""
        if isinstance(error, FomoError):
            self.troubles.append(Trouble(gallery.reference, gallery.path, error))

    def add_experiment(self, loaded: Loaded, *, look_for_weights: bool = False) -> None:
        """look_for_weights: refuse an experiment whose backbones' files are not there. What is
        made of them already can be used without."""
        experiment = loaded.experiment
        self.experiment = experiment.name
        check_forms(experiment)
        self.names.claim(loaded)
        if experiment.stream.growing is not None:  # looked at, too, while it is in trouble
            self.growing[experiment.name] = loaded.base / experiment.stream.growing.expanduser()
        self.loaded[experiment.name] = loaded = with_stream_read(loaded)
        arrived = tuple(map(viewed(experiment), loaded.arrived or ()))
        theta = self.add_backbone(loaded, experiment.backbone, "backbone")
        chunks, trained_on = self.add_stream(loaded, theta, arrived)
        pool = experiment.pool
        pool_key = self.add_pool(loaded, pool, "pretraining_pool") if pool is not None else None
        backbone = self.backbone_of(theta)
        roles = roles_of(experiment, trained_on)
        since = first_evaluated(experiment, arrived)
        evaluated = {name: self.add_samples(loaded, name, "evaluation") for name in roles}
        by_stage = [
            {d: role for d, role in roles.items() if since.get(d, 0) <= stage}
            for stage in range(len(chunks) + 1)
        ]
        near = self.near_duplicates(experiment, chunks, by_stage[1:], theta)
        left = [KeptNode.of(one).key for one in near.values() if one.settings.deduplicate]
        kept = left or chunks
        evaluations, candidates, live_starts = [], list[str](), dict[int, str]()
        if experiment.release is not None:
            experiment.release.gates.check_evaluated(
                experiment.name, roles, {dataset.task for dataset in evaluated.values()},
                arriving=experiment.is_evaluated_on_arrivals,
            )  # fmt: skip

        def evaluate(stage: int, checkpoint_key: str) -> None:
            key = f"{experiment.name}/evaluation_{stage:03d}"
            there = by_stage[stage]
            evaluation = EvaluationNode(
                key=key, experiment=experiment.name, stage=stage, backbone=backbone,
                checkpoint_key=checkpoint_key, settings=experiment.evaluation.located(loaded.base),
                datasets={d: evaluated[d] for d in there}, roles=there,
                left=LeftTowers(theta, experiment.method.left_towers),
                execution=experiment.execution,
            )  # fmt: skip
            self.add(evaluation)
            evaluations.append(key)
            for kind in MEASURES:
                if (measure := kind.of(evaluation)) is not None:
                    self.add(measure)
            if experiment.release is not None:
                before = candidates[-1] if candidates else None
                gated = near if experiment.release.gates.data is not None else {}
                brought = tuple(one for of, one in gated.items() if of <= stage)
                candidate = CandidateNode.of(
                    evaluation, experiment, before,
                    HeldData(stage, brought, live_starts.get(stage)), self.nodes,
                    is_last=stage == len(chunks),
                )  # fmt: skip
                self.add(candidate)
                candidates.append(candidate.key)

        evaluate(0, theta)
        budget = budget_of(experiment, backbone, len(chunks))
        if budget is not None:
            self.add(budget)
        weights = WeightsOverTime(
            experiment=experiment.name, method=experiment.method, base_key=theta, backbone=backbone,
            chunk_keys=kept, brought_keys=chunks,
            release=experiment.release.name if experiment.release else None,
        )  # fmt: skip
        for stage in range(1, len(chunks) + 1):
            for start in weights.before_training(stage):
                if isinstance(start, LiveStartNode):
                    self.add(start)
                    live_starts[stage] = start.key
                else:
                    self.add_merge(loaded, start, weights)
            if stage in near:
                self.add_near_duplicates(near[stage])
            if experiment.inspection is not None:
                self.add(self.inspection(loaded, experiment.inspection, weights, chunks[:stage]))
            self.add(self.trained(loaded, stage, weights, pool_key, budget))
            for deployed in weights.after_training(stage):
                self.add_merge(loaded, deployed, weights)
            evaluate(stage, weights.deployed(stage))
        of_experiment = Evaluated(
            experiment=experiment, datasets=evaluated, roles=roles, since=since,
            evaluation_keys=tuple(evaluations), chunk_keys=tuple(chunks),
            overview=overview(loaded),
        )  # fmt: skip
        for kind in SUMMARIES:
            if (summary := kind.of(of_experiment)) is not None:
                self.add(summary)
        for file in self.weights[experiment.name] if look_for_weights else ():
            file.check_is_there()
        self.experiments[experiment.name] = experiment
        if loaded.sweep is not None:
            self.sweeps[loaded.sweep] = (*self.sweeps.get(loaded.sweep, ()), experiment.name)

    def add_releases(self) -> None:
        """What is live under each release name, after all stages that may go live under it."""
        for node in list(release_nodes(self.nodes.values())):
            self.add(node)
