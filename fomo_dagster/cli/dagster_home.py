"""DAGSTER_HOME inside the project's home: made once, and cleared of what a killed run left."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from fomo_dagster.home import Home
from fomo_dagster.store.files import write_bytes
from fomo_dagster.store.leases import lease

SETTINGS = """\
telemetry:
  enabled: false
nux:
  enabled: false
run_monitoring:
  enabled: true
  poll_interval_seconds: 20
  free_slots_after_run_end_seconds: 20
concurrency:
  pools:
    default_limit: 1
    granularity: op
"""
PROCESS_TAG = "fomo/process"
HOST_TAG = "fomo/host"


def prepare(home: Home) -> DagsterInstance:
    """The instance of a home. Two processes that first touch a fresh DAGSTER_HOME together can
    corrupt it for good, so its databases are made under a lease."""
    os.environ["DAGSTER_HOME"] = str(home.dagster)
    with lease(home.leases / "dagster_home"):
        settings = home.dagster / "dagster.yaml"
        if not settings.exists():
            home.dagster.mkdir(parents=True, exist_ok=True)
            write_bytes(settings, SETTINGS.encode())
        instance = DagsterInstance.get()
        instance.get_runs(limit=1)
        _end_dead_runs(instance)
    return instance


def run_tags() -> dict[str, str]:
    """What tells later which process a run lived in."""
    return {PROCESS_TAG: _process_identity(os.getpid()), HOST_TAG: socket.gethostname()}


def _end_dead_runs(instance: DagsterInstance) -> None:
    """Fail the runs of this host whose process is gone, and free the slots of all that ended.

    Dagster frees a killed run's slots only through its daemon, which may not be running.
    """
    running = RunsFilter(
        statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.STARTING],
        tags={HOST_TAG: socket.gethostname()},
    )
    for run in instance.get_runs(running):
        identity = run.tags.get(PROCESS_TAG, "")
        if identity != _process_identity(int(identity.partition("-")[0] or 0)):
            instance.report_run_failed(run, "its process ended without finishing it")
    slots = instance.event_log_storage
    for run_id in slots.get_concurrency_run_ids():
        holder = instance.get_run_by_id(run_id)
        if holder is None or holder.is_finished:
            slots.free_concurrency_slots_for_run(run_id)


def _process_identity(process: int) -> str:
    """Process number and start time, since numbers are used again; empty where none runs."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return str(process) if process and _is_alive(process) else ""
    return f"{process}-{stat.rpartition(')')[2].split()[19]}"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not Path("/proc/self").exists()  # where there is /proc, it has the last word


def serve(home: Home, project: Path, host: str, port: int) -> None:
    """Become `dagster dev` on the project's workspace."""
    os.environ["FOMO_PROJECT"] = str(project)
    os.environ["FOMO_HOME"] = str(home.root)
    workspace = Path(__file__).resolve().parents[2] / "workspace.yaml"
    os.chdir(workspace.parent)
    # `dg dev`, which Dagster would rather be called by, comes with a package of its own.
    ignored = [os.environ.get("PYTHONWARNINGS"), "ignore:Function `dev_command` is superseded"]
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, ignored))
    arguments = ["-m", "dagster", "dev", "-w", str(workspace), "-h", host, "-p", str(port)]
    os.execv(sys.executable, [sys.executable, *arguments])
