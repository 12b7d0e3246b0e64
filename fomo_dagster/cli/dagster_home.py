"""DAGSTER_HOME inside the project's home: made once, and told of the runs that were killed."""

from __future__ import annotations

import os
import socket
import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from fomo_dagster.errors import InputError
from fomo_dagster.home import DEFINITIONS, SHOWN, UI, Home
from fomo_dagster.store.files import write_bytes
from fomo_dagster.store.leases import lease
from resources.dagster_internals import keeps_runs_on_this_machine

SETTINGS = """\
telemetry:
  enabled: false
nux:
  enabled: false
run_monitoring:
  enabled: true
  poll_interval_seconds: 20
python_logs:
  python_log_level: INFO
"""
_NO_LOCKS = {"disk I/O error", "locking protocol"}  # what SQLite says where there are none
LARGE_PROJECTS = {  # 20,000 assets are 130 MB, which take Dagster a minute to put together
    "DAGSTER_GRPC_MAX_RX_BYTES": str(2**30),
    "DAGSTER_GRPC_MAX_SEND_BYTES": str(2**30),
    "DAGSTER_GRPC_TIMEOUT_SECONDS": "300",
    "DAGSTER_REPOSITORY_GRPC_TIMEOUT_SECONDS": "300",
}
PROCESS_TAG = "fomo/process"
HOST_TAG = "fomo/host"
CLOCKS_DIFFER_BY = 2.0  # seconds: between the kernel's count since boot and the clock's time


def prepare(home: Home) -> DagsterInstance:
    """The instance of a home. Two processes that first touch a fresh DAGSTER_HOME together can
    corrupt it for good, so its databases are made under a lease.

    Raises as `Home.check_dagster`.
    """
    home.check_dagster()
    os.environ["DAGSTER_HOME"] = str(home.dagster)
    with lease(home.leases / "dagster_home"):
        settings = home.dagster / "dagster.yaml"
        if not settings.exists():
            home.dagster.mkdir(parents=True, exist_ok=True)
            write_bytes(settings, SETTINGS.encode())
        try:
            instance = DagsterInstance.get()
            instance.get_runs(limit=1)
        except Exception as error:
            refusal = error.__cause__  # of what SQLAlchemy raises
            if not (isinstance(refusal, sqlite3.OperationalError) and _NO_LOCKS & {str(refusal)}):
                raise
            raise InputError(
                f"Dagster cannot keep its databases in {home.dagster}, whose file system takes no "
                f"locks ({refusal}): name a folder of a local disk in {settings}, as in "
                "`storage: {sqlite: {base_dir: /var/lib/fomo}}`, or a PostgreSQL server"
            ) from error
        end_dead_runs(instance)
    return instance


def run_tags() -> dict[str, str]:
    """What tells later which process a run lived in."""
    return {PROCESS_TAG: _process_identity(os.getpid()), HOST_TAG: socket.gethostname()}


def end_dead_runs(instance: DagsterInstance) -> None:
    """Fail the runs whose process on this host is gone.

    Dagster notices a killed run only through its daemon, which may not be running, and only where
    its own code server started it.
    """
    under_way = [
        DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING
    ]  # fmt: skip
    for run in instance.get_runs(RunsFilter(statuses=under_way)):
        if _is_gone(run, instance):
            instance.report_run_failed(run, "its process ended without finishing it")


def _is_gone(run: DagsterRun, instance: DagsterInstance) -> bool:
    """Whether the process that a run lived in has ended, as far as this host can tell.

    `fomo run` tags its runs with their process. Of others, started in the UI or by `dagster asset
    materialize`, Dagster's executor writes the process number; its host is this one where the runs
    are kept in a local database.
    """
    if HOST_TAG in run.tags and run.parent_run_id is None:  # re-executed runs inherit tags
        identity = run.tags.get(PROCESS_TAG, "")
        process = int(identity.partition("-")[0] or 0)
        here = run.tags[HOST_TAG] == socket.gethostname()
        return here and identity != _process_identity(process)
    if not keeps_runs_on_this_machine(instance):
        return False
    for record in reversed(instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)):
        event = record.dagster_event
        number = event.engine_event_data.metadata.get("pid") if event is not None else None
        if number is not None:
            return not _lived_at(int(str(number.value)), record.timestamp)
    return False


def _lived_at(process: int, moment: float) -> bool:
    """Whether the process that runs under a number now did so at a moment (Unix time) too."""
    identity = _process_identity(process)
    if "-" not in identity:
        return bool(identity)
    ticks = int(identity.partition("-")[2])
    booted = time.time() - float(Path("/proc/uptime").read_text().split()[0])
    return booted + ticks / os.sysconf("SC_CLK_TCK") <= moment + CLOCKS_DIFFER_BY


def _process_identity(process: int) -> str:
    """Process number and start time, since numbers are used again; empty where none runs."""
    try:
        state, *numbers = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return str(process) if process and _is_alive(process) else ""
    # A killed process stays listed as a zombie until its parent takes notice.
    return "" if state in "ZX" else f"{process}-{numbers[18]}"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not Path("/proc/self").exists()  # where there is /proc, it has the last word


def serve(home: Home, project: Path, shown: Sequence[str], host: str, port: int) -> None:
    """Become `dagster dev` on the project's definitions. shown: of these alone, if any."""
    os.environ[SHOWN] = ",".join(shown)
    os.environ["FOMO_PROJECT"] = str(project)
    os.environ["FOMO_HOME"] = str(home.root)
    os.environ[UI] = f"{host}:{port}"
    for name, value in LARGE_PROJECTS.items():
        os.environ.setdefault(name, value)
    os.chdir(project)
    # `dg dev`, which Dagster would rather be called by, comes with a package of its own.
    ignored = [os.environ.get("PYTHONWARNINGS"), "ignore:Function `dev_command` is superseded"]
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, ignored))
    arguments = ["-m", "fomo_dagster.cli.ui_process", "dev", "-m", DEFINITIONS, "-d", str(project)]
    arguments += ["-h", host, "-p", str(port)]
    os.execv(sys.executable, [sys.executable, *arguments])
