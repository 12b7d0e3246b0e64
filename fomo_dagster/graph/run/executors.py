"""How wide the graph runs: FOMO_EXECUTOR says by what.

in_process: one asset after the other, in the process of the run. processes: whatever is ready at
once, each device's work in a process of its own. ray: the same, on the nodes of a Ray cluster.
kubernetes: the same, in a pod each. By default `processes` where FOMO_DEVICES, or the machine, has
several devices, else `in_process`. Assets are the same under all.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Literal, cast, get_args

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.graph.run.clusters import Cluster, LocalCluster
from fomo_dagster.graph.run.devices import devices_here
from fomo_dagster.graph.run.processes import Forked

SETTING = "FOMO_EXECUTOR"
Executor = Literal["in_process", "processes", "ray", "kubernetes"]


def named_executor() -> Executor | None:
    """What FOMO_EXECUTOR names. Raises `InputError` for a name that is none."""
    named = os.environ.get(SETTING, "").strip()
    if named and named not in get_args(Executor):
        raise InputError(f"{SETTING} is {named!r}: {nearest(named, get_args(Executor))}")
    return cast(Executor, named) if named else None


def open_cluster(parallel: int | None = None) -> Cluster:
    """What FOMO_EXECUTOR and FOMO_DEVICES name, for work to begin on.

    parallel: the most devices that are used at once. Raises `InputError` where there are not as
    many, or where the cluster cannot be used.
    """
    executor = named_executor()
    if executor == "ray":
        try:
            from fomo_dagster.graph.run.on_ray import RayCluster
        except ImportError as error:
            raise InputError(
                f"{SETTING} is 'ray', which is not installed ({error}): "
                "pip install 'fomo-dagster[ray]'"
            ) from error
        return RayCluster.connected(parallel)
    if executor == "kubernetes":
        try:
            from fomo_dagster.graph.run.on_kubernetes import KubernetesCluster
        except ImportError as error:
            raise InputError(
                f"{SETTING} is 'kubernetes', which is not installed ({error}): "
                "pip install 'fomo-dagster[kubernetes]'"
            ) from error
        return KubernetesCluster.connected(parallel)
    devices = devices_here()
    if parallel is not None:
        devices = devices.at_most(parallel)
    in_process = executor == "in_process" or (executor is None and devices.count == 1)
    return LocalCluster(devices, None if in_process else _forked())


@cache
def _forked() -> Forked:
    return Forked()
