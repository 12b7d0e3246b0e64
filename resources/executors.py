"""Dagster's executor for what FOMO_EXECUTOR names; see `fomo_dagster/graph/run/executors.py`."""

import dagster as dg

from fomo_dagster.graph.run.clusters import Cluster
from fomo_dagster.graph.run.devices import devices_here
from fomo_dagster.graph.run.executors import named_executor
from resources.step_threads import step_threads


def default_executor() -> dg.ExecutorDefinition:
    """That of jobs which Dagster starts by itself. Connects to nothing; raises `InputError` for a
    setting that there is not."""
    named = named_executor()
    several = devices_here().count > 1 if named is None else named != "in_process"
    return step_threads if several else dg.in_process_executor


def executor_on(cluster: Cluster) -> dg.ExecutorDefinition:
    """That of a job on a cluster."""
    return step_threads if cluster.has_workers else dg.in_process_executor
