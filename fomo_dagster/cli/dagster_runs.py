"""Runs of Dagster's jobs in a command's own process, with their place in Dagster's UI.

`dagster.materialize` and `execute_in_process` leave no trace of where a job was defined, so that
the UI shows their runs in no job's history and cannot execute them again. Dagster has no public way
to say it; what this module uses of its internals is held by tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.workspace.load_target import WorkspaceFileTarget

from fomo_dagster.cli.dagster_home import run_tags

WORKSPACE = Path(__file__).resolve().parents[2] / "workspace.yaml"
REPOSITORY = "__repository__"  # Dagster's name for the one of a module with `Definitions`


def run_job(
    job: dg.JobDefinition,
    keys: Sequence[dg.AssetKey],
    instance: dg.DagsterInstance,
    *,
    tags: Mapping[str, str],
    run_config: Mapping[str, Any],
    in_ui: bool,
) -> dg.JobExecutionResult:
    """Run a job here and now, for some of its assets; a failure is in the result.

    in_ui: whether the job is one of the project's definitions, in whose history the run then is.
    """
    run = instance.create_run_for_job(
        job,
        run_config=run_config,
        tags={**job.run_tags, **tags, **run_tags()},
        asset_selection=set(keys),
        remote_job_origin=_origin_of(job.name) if in_ui else None,
    )
    return execute_run(InMemoryJob(job), run, instance)


def _origin_of(job: str) -> RemoteJobOrigin:
    (location,) = WorkspaceFileTarget([str(WORKSPACE)]).create_origins()
    return RemoteRepositoryOrigin(location, REPOSITORY).get_job_origin(job)
