"""The one resource that assets need: run contexts on the engine's graph."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import RLock
from typing import Any, Protocol

import dagster as dg
from pydantic import Field, PrivateAttr

from fomo_dagster.errors import StoreError
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.run.clusters import Cluster, LocalCluster
from fomo_dagster.graph.run.executors import open_cluster
from fomo_dagster.graph.run.packing import pack_weights
from fomo_dagster.graph.run.pending import pending_of
from fomo_dagster.graph.run.retention import apply_retention
from fomo_dagster.graph.run.run_context import Run, RunContext
from fomo_dagster.graph.run.schedule import priorities_of_all
from fomo_dagster.graph.run.tracking import Tracking
from fomo_dagster.home import Home
from fomo_dagster.progress import Callbacks, ignore_steps
from fomo_dagster.stopping import stop_of
from fomo_dagster.store.heads import Head
from fomo_dagster.trackers.choosing import check_names, open_trackers
from fomo_dagster.trackers.sending import Trackers
from resources.pipes import PipesChannel

SECONDS_BETWEEN_LINES = 10.0

logger = logging.getLogger(__name__)


class RunContextOpener(Protocol):
    """What assets need: Dagster's resource below, or a command that shows progress itself."""

    def open(self, graph: Graph, context: Any) -> RunContext:
        """A run context on `graph`, for the step whose context it is."""


class RunContexts(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Opens run contexts. Nothing is read or written while Dagster loads it."""

    home: str = Field(  # has a default so that the launchpad may set anything else alone
        default_factory=lambda: str(Home.from_environment().root),
        description="The home folder, FOMO_HOME.",
    )
    remote_store: str | None = Field(
        default=None,
        description="An fsspec URL that the artifact store mirrors; by default, FOMO_STORE.",
    )
    processes: int = Field(
        default_factory=lambda: os.cpu_count() or 1, description="Processes that write shards."
    )
    trackers: list[str] = Field(
        default=[],
        description="What is sent the numbers of the tables, FOMO_TRACKERS: tensorboard, wandb, "
        "mlflow.",
    )
    _cluster: Cluster = PrivateAttr(default_factory=LocalCluster)
    _order: tuple[Graph, Mapping[str, float]] | None = PrivateAttr(default=None)
    _trackers: Trackers = PrivateAttr(default_factory=Trackers.none)
    _opened: dict[str, RunContext] = PrivateAttr(default_factory=dict)
    """Experiment → a context of one of the run's steps that made its assets."""

    @classmethod
    def of(cls, home: Home, trackers: Sequence[str] = ()) -> "RunContexts":
        """The resource of a home."""
        # The UI shows what is given here to anyone, and a URL can hold a password.
        from_environment = home.remote_url == Home.from_environment().remote_url
        remote = None if from_environment else home.remote_url
        return cls(home=str(home.root), remote_store=remote, trackers=list(trackers))

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Before the first step of a run: refuses trackers, devices and clusters that there are
        not."""
        self._cluster = open_cluster()
        names = check_names(self.trackers, "the resource `run_contexts`, trackers")
        self._trackers = open_trackers(names, Path(self.home))

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """After the last step of a run, however it ended: weights that experiments do not retain
        go, and others are packed, where all that is made from them is there."""
        said = context.log.warning if context.log is not None else logger.warning
        for name, run_context in self._opened.items():
            try:
                apply_retention(name, run_context)
                pack_weights(name, run_context)
            except StoreError as error:  # no reason for a run to fail
                said(f"the weights of {name} stay as they are: {error}")
        self._opened.clear()
        self._trackers.close(said)

    def _priorities(self, graph: Graph) -> Mapping[str, float]:
        if self._order is None or self._order[0] is not graph:
            nodes = list(graph.nodes.values())
            self._order = (graph, priorities_of_all(nodes, self._cluster.slots))
        return self._order[1]

    def open(self, graph: Graph, context: Any) -> RunContext:
        """A run context that tells its progress to the step's log."""
        remote_url = self.remote_store or Home.from_environment().remote_url
        log, home = context.log, Home(Path(self.home), remote_url)
        tracking = Tracking(graph, home, self._trackers, log.warning)
        step = _StepLog(log)

        def finished(head: Head, seconds: float) -> None:
            step.goes_on()
            tracking.finished(head)

        opened = RunContext(
            graph,
            home,
            processes=self.processes,
            callbacks=Callbacks(
                progress=step.progress,
                steps=tracking.steps if self._trackers else ignore_steps,
                waiting=step.waiting,
                warn=log.warning,
            ),
            run=Run(
                id=context.run.run_id,
                channel=PipesChannel(context),
                cluster=self._cluster,
                priorities=self._priorities(graph),
                pending=pending_of(context.run.run_id),
                stop=stop_of(context.run.run_id),
                begins=lambda _: step.goes_on(),
                finished=finished,
            ),
        )
        for key in context.selected_asset_keys if graph.nodes else ():  # a source alone has none
            node = graph.nodes.get(key.to_user_string())
            if node is not None and node.experiment is not None:
                self._opened[node.experiment] = opened
        return opened


class _StepLog:
    """What a step does, as lines of its log: progress every few seconds, and waits with their end.

    Whatever a step tells after a wait says that the wait is over. Each step has its own; the
    processes that it launches tell it from another thread.
    """

    def __init__(self, log: Any) -> None:
        self._log = log
        self._lock = RLock()
        self._last = time.monotonic()
        self._waits_since: float | None = None

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        """As `fomo_dagster.progress.Progress`."""
        with self._lock:
            self.goes_on()
            now = time.monotonic()
            if now - self._last >= SECONDS_BETWEEN_LINES:
                self._last = now
                self._log.info(f"{what}: {done} of {total}" + (f", {detail}" if detail else ""))

    def waiting(self, what: str) -> None:
        """Others have what the step needs."""
        with self._lock:
            if self._waits_since is None:
                self._waits_since = time.monotonic()
            self._log.info(f"waiting for {what}")

    def goes_on(self) -> None:
        """It waits no longer, if it did."""
        with self._lock:
            if self._waits_since is not None:
                waited, self._waits_since = time.monotonic() - self._waits_since, None
                self._log.info(f"the wait is over after {waited:.1f} s")
