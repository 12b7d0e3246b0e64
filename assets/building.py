"""From the graph to Dagster's definitions: assets, jobs, schedules, sensors."""

import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from assets.announcing import announcing_sensor
from assets.commands import Commands
from assets.descriptions import metadata_of_source
from assets.growing import arrival_sensor, failed_arrival_assets, grow_job
from assets.histories import history_specs
from assets.launchpad import launch_job
from assets.releasing import releasing_jobs
from assets.schedules import observation_of, schedule_of, schedules_of
from assets.specs import EXPERIMENT_TAG, key_of, owners_of, spec_of
from assets.steps import step_asset
from assets.troubles import named_troubles, trouble_assets, trouble_key
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.experiment_sets import ExperimentSet, Trouble
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.build.names import OBSERVE, UPDATE, job_name
from fomo_dagster.graph.core.context import SourceNode
from fomo_dagster.graph.core.keys import DATASETS, what_is_made
from fomo_dagster.graph.core.node import Node
from fomo_dagster.home import Home
from resources.executors import default_executor
from resources.run_contexts import RunContextOpener, RunContexts

Job = Any  # Dagster does not export the type of what define_asset_job returns


def build_definitions(
    graph: Graph,
    run_contexts: RunContexts,
    commands: Commands,
    shown: Sequence[ExperimentSet] = (),
) -> dg.Definitions:
    """Everything that Dagster loads for a graph. Imports neither PyTorch nor OpenCLIP.

    shown: what the definitions are of; by default everything.
    """
    whole = graph = without_what_dagster_refuses(graph)
    if shown:
        wanted = {name for one in shown for name in one.names}
        graph = graph.only(wanted, [one.name for one in shown if one.gallery is not None])
    troubles = named_troubles(graph)
    in_sweeps = {name for names in graph.sweeps.values() for name in names}
    jobs = {n: job_of(n, [n], graph) for n in graph.experiments if n not in in_sweeps}
    for sweep, members in graph.sweeps.items():
        wrong = [trouble_key(name) for name, one in troubles.items() if one.sweep == sweep]
        jobs[sweep] = job_of(sweep, members, graph, wrong)
    for key, comparison in graph.comparisons.items():
        jobs[job_name(key)] = job_of(job_name(key), comparison.experiments, graph)
    for key in graph.galleries:
        jobs[job_name(key)] = job_of(job_name(key), [], graph, galleries=[key])
    jobs |= {name: job_of(name, [], graph, [trouble_key(name)]) for name in troubles}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        everything = dg.AssetSelection.all(include_sources=True)
    growing_jobs = [grow_job(commands)] if graph.growing else []
    released = {n: e.release.name for n, e in graph.experiments.items() if e.release is not None}
    release_jobs = releasing_jobs(list(released), list(released.values()))
    examples = [*graph.experiments, *graph.sweeps] or list(jobs)
    launch_jobs = [launch_job(commands, min(examples))] if examples else []
    observe_job = dg.define_asset_job(
        OBSERVE,
        selection=dg.AssetSelection.assets(*map(key_of, graph.sources)),
        description="Looks at every source, so that new images show as out of date.",
    )
    return dg.Definitions(
        assets=[
            *build_assets(whole, graph.nodes.values(), graph.sources.values()),
            *history_specs(graph),
            *trouble_assets(troubles, graph.wrong_datasets),
            *failed_arrival_assets(graph, Home(Path(run_contexts.home)), commands),
        ],
        jobs=[*jobs.values(), *launch_jobs, *release_jobs, observe_job, *growing_jobs],
        schedules=[*schedules_of(graph, troubles, jobs), observation_of(observe_job)],
        sensors=[
            dg.AutomationConditionSensorDefinition(
                UPDATE,
                target=everything,
                description="Materialises what new images or changed declarations touch.",
            ),
            *(arrival_sensor(graph.growing, job) for job in growing_jobs),
            *announcing_sensor(),
        ],
        resources={"run_contexts": run_contexts},
        executor=default_executor(),
    )


def without_what_dagster_refuses(graph: Graph) -> Graph:
    """Without experiments and comparisons whose names, owners or schedules Dagster refuses, which
    would load nothing at all."""
    for name, loaded in list(graph.loaded.items()):
        experiment = graph.experiments[name]
        try:
            job = job_of(name, [], graph)
            dg.AssetSpec(name, group_name=name, owners=experiment.owners)
            if experiment.cron_schedule is not None:
                schedule_of(name, job, experiment)
        except (dg.DagsterError, ValueError) as error:
            said = InputError(f"Dagster refuses experiment {name!r}: {error}")
            graph = graph.without(Trouble(name, loaded.path, said, loaded.sweep))
    for key, node in graph.comparisons.items():
        try:
            if node.loaded.declared.cron_schedule is not None:
                job = job_of(job_name(key), node.experiments, graph)
                schedule_of(job_name(key), job, node.loaded.declared)
        except (dg.DagsterError, ValueError) as error:
            said = InputError(f"Dagster refuses {key}: {error}")
            graph = graph.without(Trouble(key, node.loaded.path, said))
    return graph


def build_assets(
    graph: Graph,
    nodes: Collection[Node] | None = None,
    sources: Collection[SourceNode] | None = None,
) -> list[dg.AssetsDefinition | dg.SourceAsset]:
    """An asset for each of the nodes, one multi-asset for the chunks of a stream, and the sources.

    nodes, sources: those that are wanted, by default all. A run is of one experiment among
    hundreds, and what it makes may be about all.
    """
    nodes = graph.nodes.values() if nodes is None else nodes
    sources = graph.sources.values() if sources is None else sources
    steps: dict[str, list[Node]] = {}
    for node in nodes:
        steps.setdefault(what_is_made(node.key), []).append(node)
    owners = owners_of(graph)
    specs = {node.key: spec_of(node, graph, owners.get(node.key, ())) for node in nodes}
    return [
        *map(_source, sources),
        *(step_asset(key, made, specs, graph) for key, made in steps.items()),
    ]


def _source(source: SourceNode) -> dg.SourceAsset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return _observable(source)


def _observable(source: SourceNode) -> dg.SourceAsset:
    @dg.observable_source_asset(
        key=key_of(source.key),
        group_name=DATASETS,
        description="Observed: its version is a digest of what is there, images and captions.",
        required_resource_keys={"run_contexts"},
    )
    def observe(context: dg.OpExecutionContext) -> dg.ObserveResult:
        run_contexts: RunContextOpener = context.resources.run_contexts
        graph = Graph({source.key: source}, {}, {}, {})
        observed = run_contexts.open(graph, context).observe(source.key)
        return dg.ObserveResult(
            data_version=dg.DataVersion(observed.data_version),
            metadata=metadata_of_source(observed),
        )

    assert isinstance(observe, dg.SourceAsset)
    return observe


def job_of(
    name: str, experiments: Sequence[str], graph: Graph, troubles: Sequence[dg.AssetKey] = (),
    galleries: Sequence[str] = (),
) -> Job:  # fmt: skip
    """The job of an experiment, of all those of a sweep or a comparison, or of a gallery.

    troubles: the assets of those that cannot be used, which fail and say why.
    """
    alone = graph.experiments.get(name)
    description = alone.description if alone is not None else ""
    nodes = list(graph.of(*experiments)) if experiments else []
    nodes += [node for key in galleries for node in graph.of_gallery(key)]
    keys = [*(key_of(node.key) for node in nodes), *troubles]
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*keys),
        description=description or f"Materialises every asset of {name}; hits cost nothing.",
        tags={EXPERIMENT_TAG: name},
    )
