"""Runs of Dagster's jobs in a command's own process, with their place in Dagster's UI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from fomo_dagster.cli.dagster_home import run_tags
from fomo_dagster.home import project_folder
from resources.dagster_internals import events_kept_open, execute, origin_of


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
    with events_kept_open():
        run = instance.create_run_for_job(
            job,
            run_config=run_config,
            tags={**job.run_tags, **tags, **run_tags()},
            asset_selection=set(keys),
            remote_job_origin=origin_of(job.name, project_folder()) if in_ui else None,
        )
        return execute(job, run, instance)
