"""How wide the graph runs: FOMO_EXECUTOR says by what.

in_process: one asset after the other, in the process of the run. processes: whatever is ready at
once, each device's work in a process of its own. By default `processes` where FOMO_DEVICES, or the
machine, has several devices, else `in_process`. Assets are the same under all.
"""

import os
from functools import cache

import dagster as dg

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.graph.run.devices import Devices
from fomo_dagster.graph.run.processes import Forked, Starter
from resources.step_threads import step_threads

SETTING = "FOMO_EXECUTOR"
IN_PROCESS, PROCESSES = "in_process", "processes"
EXECUTORS = {IN_PROCESS: dg.in_process_executor, PROCESSES: step_threads}


def executor_name(devices: Devices) -> str:
    """What FOMO_EXECUTOR names, or the one that suits the devices. Raises `InputError` for a name
    that is none."""
    named = os.environ.get(SETTING, "").strip()
    if not named:
        return PROCESSES if devices.count > 1 else IN_PROCESS
    if named not in EXECUTORS:
        raise InputError(f"{SETTING} is {named!r}: {nearest(named, EXECUTORS)}")
    return named


def executor(devices: Devices) -> dg.ExecutorDefinition:
    """The executor of all jobs. Raises as `executor_name`."""
    return EXECUTORS[executor_name(devices)]


def starter(devices: Devices) -> Starter | None:
    """What starts processes for what takes more than a moment; None: the run's own process makes
    it."""
    return _forked() if executor_name(devices) == PROCESSES else None


@cache
def _forked() -> Forked:
    return Forked()
