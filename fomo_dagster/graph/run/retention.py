"""What becomes of an experiment's weights after a run, as its `retention` says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.build.weights_over_time import WeightsOverTime
from fomo_dagster.graph.nodes.trained import TrainedNode
from fomo_dagster.graph.nodes.weights import WeightsNode
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.progress import ignore_text
from fomo_dagster.store.cleaning import Cleaning, clean
from fomo_dagster.store.notes import want


def apply_retention(
    name: str, context: RunContext, waiting: Callable[[str], None] = ignore_text
) -> Cleaning | None:
    """Take the weights of an experiment that it does not retain, where all that is made from them
    is there; None where there is nothing to take.

    Whatever else needs them keeps them: another experiment, a release, a resume point, a running
    process, another home. Raises as `cleaning.clean`.
    """
    experiment = context.graph.experiments[name]
    if experiment.retention.keeps_all:
        return None
    going = _weights(name, context.graph) - retained(experiment, context.graph)
    going -= waited_for(name, context)
    heads = {key: context.heads.read(key) for key in going}
    addresses = {
        address
        for head in heads.values() if head is not None
        for address in head.artifacts.values()
        if context.store.places.is_here(*address)
    }  # fmt: skip
    if not addresses:
        return None
    taken = clean(
        context.home.root, context.store, lambda root: root.name in heads, addresses, waiting
    )
    return taken if taken.artifacts else None


def restore(name: str, context: RunContext) -> int:
    """Have the weights that an experiment retains made again by the next run, where they were
    cleaned; how many."""
    wanted = 0
    for key in retained(context.graph.experiments[name], context.graph):
        head = context.heads.read(key)
        for address in head.artifacts.values() if head is not None else ():
            wanted += want(context.store.places.cleaned(*address))
    return wanted


def retained(experiment: Experiment, graph: Graph) -> set[str]:
    """The keys of the weights that an experiment retains."""
    retention, name = experiment.retention, experiment.name
    stages = {n.stage for n in graph.nodes.values() if isinstance(n, TrainedNode)
              and n.experiment == name}  # fmt: skip
    kept = retention.stages(stages)
    keys = {
        node.key
        for node in graph.nodes.values()
        if isinstance(node, WeightsNode) and node.experiment == name and node.stage in kept
    }
    last = trained_last(name, graph)
    if last is None:
        return keys
    if retention.deployed_only:
        weights = _over_time(experiment, last)
        keys &= {weights.deployed(stage) for stage in kept}
    if experiment.stream.growing is not None:
        keys |= needed_next(experiment, last)
    return keys


def trained_last(name: str, graph: Graph) -> TrainedNode | None:
    """The last stage's training; None if an experiment has no stages."""
    trained = [n for n in graph.nodes.values() if isinstance(n, TrainedNode)
               and n.experiment == name]  # fmt: skip
    return max(trained, key=lambda node: node.stage, default=None)


def waited_for(name: str, context: RunContext) -> set[str]:
    """The keys of an experiment's assets that are not up to date, and of what these are made
    from."""
    entries = plan(context.graph.of(name), context)
    waits = {entry.asset for entry in entries if not entry.current}
    nodes = [node for node in context.graph.of(name) if node.key in waits]
    return {key for node in nodes for key in (node.key, *node.inputs)}


def needed_next(experiment: Experiment, last: TrainedNode) -> set[str]:
    """What the stage after the last is made from, once it comes. Keys that do not exist yet are
    among them."""
    weights = _over_time(experiment, last)
    stage = last.stage + 1
    following = replace(
        last, stage=stage, start_key=weights.start(stage), chunk_keys=tuple(weights.chunk_keys),
        trained_keys=tuple(map(weights.trained, range(1, stage))),
    )  # fmt: skip
    merges = [*weights.before_training(stage), *weights.after_training(stage)]
    return {
        weights.deployed(last.stage), *following.inputs,
        *(key for merge in merges for key in merge.inputs),
    }  # fmt: skip


def _over_time(experiment: Experiment, last: TrainedNode) -> WeightsOverTime:
    """Of an experiment whose stream may have one stage more."""
    return WeightsOverTime(
        experiment=experiment.name, method=experiment.method, base_key=last.base_key,
        backbone=last.backbone, chunk_keys=(*last.chunk_keys, ""),
        brought_keys=(*last.chunk_keys, ""),
        release=experiment.release.name if experiment.release else None,
    )  # fmt: skip


def _weights(name: str, graph: Graph) -> set[str]:
    nodes = graph.nodes.values()
    return {n.key for n in nodes if isinstance(n, WeightsNode) and n.experiment == name}
