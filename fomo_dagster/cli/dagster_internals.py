"""Everything that is used of Dagster's private modules, because no public one does it.

`dagster.materialize` and `execute_in_process` leave no trace of where a job was defined, so the UI
would show their runs in no job's history and could not execute them again. Dagster does not say in
public either whether runs are kept in a local database. When a release moves one of these names,
`tests/test_private_modules.py` says which.
"""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.runs.sqlite import SqliteRunStorage
from dagster._core.workspace.load_target import ModuleTarget

from fomo_dagster.home import DEFINITIONS

_REPOSITORY = "__repository__"  # Dagster's name for the one of a module with `Definitions`


def execute(
    job: dg.JobDefinition, run: dg.DagsterRun, instance: dg.DagsterInstance
) -> dg.JobExecutionResult:
    """Execute a run that the instance has, in this process; a failure is in the result."""
    return execute_run(InMemoryJob(job), run, instance)


def origin_of(job: str, project: Path) -> RemoteJobOrigin:
    """Where the UI of a project finds a job of its definitions."""
    (location,) = ModuleTarget(DEFINITIONS, None, str(project), None).create_origins()
    return RemoteRepositoryOrigin(location, _REPOSITORY).get_job_origin(job)


def keeps_runs_on_this_machine(instance: dg.DagsterInstance) -> bool:
    """Whether its runs are in a local database, and so lived on this machine."""
    return isinstance(instance.run_storage, SqliteRunStorage)
