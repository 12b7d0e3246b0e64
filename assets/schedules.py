"""Dagster's schedules: of experiments and comparisons that declare one, and of the look at sources.

A tick requests no run while a run of the same experiment continues, whatever began it, and says so.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from assets.specs import EXPERIMENT_TAG
from fomo_dagster.experiment.comparison import DeclaredComparison
from fomo_dagster.experiment.experiment_sets import Trouble
from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.build.names import OBSERVATION, SCHEDULE, job_name

Job = Any  # Dagster does not export the type of what define_asset_job returns
GOES_ON = [
    dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]  # fmt: skip


def run_that_goes_on(
    instance: dg.DagsterInstance, *, experiment: str | None = None, job: str | None = None
) -> str | None:
    """The id of a run of the experiment, or of the job, that waits or runs. A run whose process is
    gone has ended."""
    from fomo_dagster.cli.dagster_home import end_dead_runs  # which the command line builds on

    end_dead_runs(instance)
    tags = {EXPERIMENT_TAG: experiment} if experiment is not None else None
    found = instance.get_run_records(
        dg.RunsFilter(job_name=job, tags=tags, statuses=GOES_ON), limit=1
    )
    return found[0].dagster_run.run_id if found else None


def schedules_of(
    graph: Graph, troubles: Mapping[str, Trouble], jobs: Mapping[str, Job]
) -> Iterator[dg.ScheduleDefinition]:
    """A sweep has one schedule, and its experiments have none of their own. The schedule of an
    experiment that cannot be used continues, so that whoever is told of failures hears of it."""
    sweep_of = {name: sweep for sweep, names in graph.sweeps.items() for name in names}
    experiments = {
        name: one.loaded.experiment
        for name, one in troubles.items()
        if one.loaded is not None and one.sweep is None
    }
    experiments |= {
        sweep_of.get(name, name): experiment for name, experiment in graph.experiments.items()
    }
    scheduled: dict[str, Experiment | DeclaredComparison] = {
        **experiments,
        **{job_name(key): node.loaded.declared for key, node in graph.comparisons.items()},
    }
    for name, declared in scheduled.items():
        if declared.cron_schedule is not None:
            yield schedule_of(name, jobs[name], declared)


def schedule_of(
    name: str, job: Job, declared: Experiment | DeclaredComparison
) -> dg.ScheduleDefinition:
    """The schedule of an experiment, of the sweep that it is one of, or of a comparison."""
    assert declared.cron_schedule is not None
    return _schedule(
        f"{name}{SCHEDULE}",
        job,
        declared.cron_schedule,
        {"experiment": name},
        description=f"Reruns {name}; what did not change is not computed again.",
        execution_timezone=declared.cron_timezone,
    )


def observation_of(job: Job) -> dg.ScheduleDefinition:
    """The schedule of the job that looks at the sources."""
    return _schedule(
        OBSERVATION,
        job,
        "*/5 * * * *",
        {"job": job.name},
        description="Looks for new images every five minutes.",
    )


def _schedule(
    name: str, job: Job, cron: str, same: Mapping[str, str], **further: Any
) -> dg.ScheduleDefinition:
    """same: the runs beside which no other is wanted, as of `run_that_goes_on`."""

    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        other = run_that_goes_on(context.instance, **same)
        if other is not None:
            return dg.SkipReason(f"run {other} still goes on: skipped, and looked at next time")
        return dg.RunRequest()

    return dg.ScheduleDefinition(
        name=name, job=job, cron_schedule=cron, execution_fn=tick, **further
    )
