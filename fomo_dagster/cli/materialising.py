"""What `fomo run` does through Dagster: it materialises what a plan says.

A command that finds nothing to do imports none of this.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import dagster as dg

from assets.building import build_assets, job_of
from assets.specs import DATA_VERSION_TAG, EXPERIMENT_TAG, key_of
from fomo_dagster.cli.dagster_home import prepare
from fomo_dagster.cli.dagster_runs import run_job
from fomo_dagster.cli.failures import failures_of, interruption_of
from fomo_dagster.cli.interruptions import Signals
from fomo_dagster.cli.planning import RunRequest, warn_once
from fomo_dagster.cli.run_view import RunView
from fomo_dagster.errors import FomoError, StoppedError
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.core.keys import assets_by_step, what_is_made
from fomo_dagster.graph.run.clusters import Cluster
from fomo_dagster.graph.run.pending import pending_of
from fomo_dagster.graph.run.plan import Planned
from fomo_dagster.graph.run.run_context import Run, RunContext
from fomo_dagster.graph.run.schedule import priorities, works_of
from fomo_dagster.graph.run.tracking import Tracking
from fomo_dagster.home import Home
from fomo_dagster.progress import Callbacks
from fomo_dagster.stopping import stop_of
from fomo_dagster.store.heads import Head
from resources.executors import executor_on
from resources.pipes import PipesChannel

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
COMMAND_TAG = "fomo/command"


@dataclass(frozen=True)
class Materialising:
    """What a command materialises with. instance: None: that of the home. failed: why, by the
    assets that failed; added to."""

    request: RunRequest
    instance: dg.DagsterInstance | None
    command: str
    view: RunView
    signals: Signals
    tracking: Tracking
    cluster: Cluster
    failed: dict[str, FomoError]

    @cached_property
    def _assets(self) -> list[dg.AssetsDefinition | dg.SourceAsset]:
        return build_assets(self.request.graph, self.request.nodes)

    def materialise(self, planned: Sequence[Planned], wanted: Sequence[Planned]) -> None:
        """Materialise the assets of some entries of a plan. Raises `StoppedError` on a signal."""
        request, name, home = self.request, self.request.job, self.request.home
        graph, instance = request.graph, self.instance or prepare(home)
        observe_sources(request, instance)
        keys = [key_of(entry.asset) for entry in wanted]
        if any(entry.compute and graph.nodes[entry.asset].needs for entry in wanted):
            self.cluster.check_home(home.root)
            self.cluster.preload()
        galleries = [] if request.gallery is None else [request.gallery.key]
        nodes = [graph.nodes[entry.asset] for entry in planned]
        order = priorities(works_of(nodes, planned), self.cluster.slots)
        with self.view.materialising([entry.asset for entry in wanted]):
            run_contexts = _ShownRunContexts(home, self.view, self.tracking, self.cluster, order)
            definitions = dg.Definitions(
                self._assets,
                jobs=[job_of(name, request.experiment_set.names, graph, galleries=galleries)],
                resources={"run_contexts": run_contexts},
                executor=executor_on(self.cluster),
            )
            result = run_job(
                definitions.resolve_job_def(name),
                keys,
                instance,
                tags={COMMAND_TAG: self.command, EXPERIMENT_TAG: request.name},
                run_config=QUIET,
                in_ui=request.is_in_project,
            )
        if result.success:
            return
        number = self.signals.received
        assets = assets_by_step(graph.nodes)
        if number is not None:
            instance.report_run_canceled(result.dagster_run, f"stopped by {number.name}")
            where = interruption_of(result, assets) or f"stopped by {number.name}"
            # Threads are asked to stop as by SIGTERM, whatever came.
            where = where.replace(": SIGTERM", f": {number.name}")
            raise StoppedError(number, f"{where}; the same command goes on from here")
        for asset, failure in failures_of(result, assets).items():
            self.failed[asset] = failure
            if asset not in run_contexts.told:
                self.view.failed(asset, failure)


@dataclass(frozen=True)
class _ShownRunContexts:
    """The assets' resource of a command: progress goes to its view."""

    home: Home
    view: RunView
    tracking: Tracking
    cluster: Cluster
    priorities: Mapping[str, float]
    told: set[str] = field(default_factory=set)
    """The assets that failed and were told of."""

    def open(self, graph: Graph, context: Any) -> RunContext:
        made = what_is_made(min(key.to_user_string() for key in context.selected_asset_keys))
        step = self.view.step(made)

        def failed(asset: str, error: FomoError) -> None:
            self.told.add(made)
            self.view.failed(made, type(error)(f"{made}: {error}"))

        def finished(head: Head, seconds: float) -> None:
            step.finished(head, seconds)
            self.tracking.finished(head)

        def steps(asset: str, digest: str, rows: Sequence[Mapping[str, float]]) -> None:
            step.steps(asset, digest, rows)
            self.tracking.steps(asset, digest, rows)

        return RunContext(
            graph,
            self.home,
            processes=os.cpu_count() or 1,
            callbacks=Callbacks(
                progress=step.progress,
                steps=steps,
                waiting=step.waiting,
                warn=partial(warn_once, say=self.view.warn),
            ),
            run=Run(
                id=context.run.run_id,
                channel=PipesChannel(context),
                cluster=self.cluster,
                priorities=self.priorities,
                pending=pending_of(context.run.run_id),
                stop=stop_of(context.run.run_id),
                begins=step.begins,
                finished=finished,
                failed=failed,
            ),
        )


def observe_sources(request: RunRequest, instance: dg.DagsterInstance) -> None:
    """Tell Dagster what the sources hold now, so that its UI calls stale what is."""
    run_context = RunContext(request.graph, request.home)
    needed = {key for node in request.nodes for key in node.inputs}
    for key in sorted(needed & request.graph.sources.keys()):
        tags = {DATA_VERSION_TAG: run_context.observe(key).data_version}
        instance.report_runless_asset_event(dg.AssetObservation(key_of(key), tags=tags))
