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
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
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
    "StepDependencyConfig",
    "StepExecutionContext",
    "dagster_event_sequence_for_step",
    "events_kept_open",
    "execute",
    "keeps_runs_on_this_machine",
    "origin_of",
]  # fmt: skip

_TAIL = compute_logs.execute_posix_tail
_REPOSITORY = "__repository__"  # Dagster's name for the one of a module with `Definitions`


def execute(
    job: dg.JobDefinition, run: dg.DagsterRun, instance: dg.DagsterInstance
) -> dg.JobExecutionResult:
    """Execute a run that the instance has, in this process; a failure is in the result."""
    with mock.patch.object(compute_logs, "execute_posix_tail", _deaf_to_interrupts):
        return execute_run(InMemoryJob(job), run, instance)


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
