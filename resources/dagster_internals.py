"""Everything that is used of Dagster's private modules, because no public one does it.

`dagster.materialize` and `execute_in_process` leave no trace of where a job was defined, so the UI
would show their runs in no job's history and could not execute them again. Dagster does not say in
public either whether runs are kept in a local database. It has executors of steps in one process
and of a process for each, and none of steps in threads. When a release moves one of these names,
`tests/test_private_modules.py` says which.
"""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
from dagster._core.definitions import input as inputs
from dagster._core.definitions import output as outputs
from dagster._core.definitions.assets.graph import asset_graph
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import EngineEventData
from dagster._core.execution import compute_logs
from dagster._core.execution.api import ExecuteRunWithPlanIterable, execute_run
from dagster._core.execution.context.system import (
    PlanExecutionContext,
    PlanOrchestrationContext,
    StepExecutionContext,
)
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.execute_plan import dagster_event_sequence_for_step
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.execution.step_dependency_config import StepDependencyConfig
from dagster._core.executor.base import Executor
from dagster._core.remote_origin import RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import SqliteRunStorage
from dagster._core.storage.sql import create_engine, db  # type: ignore[attr-defined]
from dagster._core.types.dagster_type import resolve_dagster_type
from dagster._core.workspace.load_target import ModuleTarget

from fomo_dagster.home import DEFINITIONS

__all__ = [
    "DagsterExecutionInterruptedError",
    "EngineEventData",
    "ExecuteRunWithPlanIterable",
    "ExecutionPlan",
    "Executor",
    "InstanceConcurrencyContext",
    "PlanExecutionContext",
    "PlanExecutionContextManager",
    "PlanOrchestrationContext",
    "RetryMode",
    "StepDefinition",
    "StepDependencyConfig",
    "StepExecutionContext",
    "dagster_event_sequence_for_step",
    "define_in_linear_time",
    "dependencies_of",
    "events_kept_open",
    "execute",
    "keeps_runs_on_this_machine",
    "origin_of",
]  # fmt: skip

_TAIL = compute_logs.execute_posix_tail
_REPOSITORY = "__repository__"  # Dagster's name for the one of a module with `Definitions`


class StepDefinition(dg.AssetsDefinition):
    """The assets of a step, which are copied to be given resources. Dagster's are made anew."""

    def with_resources(self, resource_defs: Mapping[str, dg.ResourceDefinition]) -> StepDefinition:
        copied = copy(self)
        copied._resource_defs = {**resource_defs, **self._resource_defs}
        return copied


def execute(
    job: dg.JobDefinition, run: dg.DagsterRun, instance: dg.DagsterInstance
) -> dg.JobExecutionResult:
    """Execute a run that the instance has, in this process; a failure is in the result."""
    with mock.patch.object(compute_logs, "execute_posix_tail", _deaf_to_interrupts):
        return execute_run(InMemoryJob(job), run, instance)


def define_in_linear_time() -> None:
    """Have Dagster, in this process, define thousands of assets that depend on the same few without
    copying, for each, the set of those before it; and look at each type of input and output once.
    """
    resolved_once = cache(resolve_dagster_type)
    mock.patch.object(asset_graph, "generate_asset_dep_graph", dependencies_of).start()
    mock.patch.object(inputs, "resolve_dagster_type", resolved_once).start()
    mock.patch.object(outputs, "resolve_dagster_type", resolved_once).start()


def dependencies_of(
    assets: Iterable[dg.AssetsDefinition],
) -> Mapping[str, Mapping[dg.AssetKey, set[dg.AssetKey]]]:
    """As `generate_asset_dep_graph`: what each asset depends on, and what depends on it."""
    upstream: dict[dg.AssetKey, set[dg.AssetKey]] = {}
    downstream: dict[dg.AssetKey, set[dg.AssetKey]] = {}
    for asset in assets:
        for spec in asset.specs:
            upstream[spec.key] = {dep.asset_key for dep in spec.deps}
            downstream.setdefault(spec.key, set())
            for key in upstream[spec.key]:
                downstream.setdefault(key, set()).add(spec.key)
    return {"upstream": upstream, "downstream": downstream}


@contextmanager
def events_kept_open() -> Iterator[None]:
    """Keep the databases of events open that are written to within.

    Dagster opens them for each event, and whoever closes one last writes it together anew, which
    takes longer than the event. It also compiles its SQL anew for each, unless an engine stays. The
    last events may be lost with the machine's power, and with nothing less: what was made is in
    heads, not in them.
    """
    engines, kept = dict[str, Any](), set[str]()

    def engine_of(address: str, **options: Any) -> Any:
        """As `create_engine`. It is asked for at each event, at the second of which a database has
        its tables."""
        if address not in engines:
            engines[address] = create_engine(address, **options)
            db.event.listen(engines[address], "connect", _without_waiting_for_the_disk)
        elif address not in kept:
            kept.add(address)
            file = sqlite3.connect(engines[address].url.database, check_same_thread=False)
            stack.enter_context(closing(file))
            file.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return engines[address]

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(sqlite_event_log, "create_engine", engine_of))
        yield


def _without_waiting_for_the_disk(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA synchronous = NORMAL")


@contextmanager
def _deaf_to_interrupts(path: str, stream: Any) -> Iterator[Any]:
    """As Dagster's own, for the processes that copy what a run prints: Ctrl-C in a terminal reaches
    them too, and each would end in a traceback. The run ends them."""
    with ExitStack() as stack:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # they inherit it
        try:
            processes = stack.enter_context(_TAIL(path, stream))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield processes


def origin_of(job: str, project: Path) -> RemoteJobOrigin:
    """Where the UI of a project finds a job of its definitions."""
    (location,) = ModuleTarget(DEFINITIONS, None, str(project), None).create_origins()
    return RemoteRepositoryOrigin(location, _REPOSITORY).get_job_origin(job)


def keeps_runs_on_this_machine(instance: dg.DagsterInstance) -> bool:
    """Whether its runs are in a local database, and so lived on this machine."""
    return isinstance(instance.run_storage, SqliteRunStorage)
