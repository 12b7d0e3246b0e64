"""Dagster's servers and all that they start: one group of processes, which ends as a whole.

By itself `dagster dev` dies of SIGHUP at once, and of SIGTERM it leaves the runs under way. Here a
signal to this process alone, as a supervisor sends it, ends what Ctrl-C ends, and runs stop at
their resume points. A group of their own is told once, not by the terminal and again from here.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import subprocess
import sys
import threading
import time

import psutil

from fomo_dagster.cli.interruptions import Signals

SERVERS = "from fomo_dagster.cli.ui_process import serve; serve()"
_SECONDS_BETWEEN_LOOKS = 0.2


def main() -> None:
    """Run Dagster's command line with the arguments of this process, until it ends or a signal asks
    to stop. Exits with its status, or 128 + the signal; nothing that it started goes on."""
    with Signals() as signals:
        servers = subprocess.Popen(
            [sys.executable, "-c", SERVERS, *sys.argv[1:]],
            stdin=subprocess.PIPE,  # which ends with this process, however that ends
            process_group=0,
        )
        with contextlib.suppress(KeyboardInterrupt):
            servers.wait()
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # asked again: tell them again
                _end(servers)
                break
        received = signals.received
    sys.exit(servers.returncode if received is None else 128 + received)


def serve() -> None:
    """Run Dagster's command line in this process, which ends its group once stdin does."""
    # A script's `fomo ui &` has SIGINT ignored, which here is how the group is told.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with_command, daemon=True).start()
    runpy.run_module("dagster", run_name="__main__", alter_sys=True)


def _end_with_command() -> None:
    os.read(0, 1)
    os.killpg(0, signal.SIGINT)


def _end(servers: subprocess.Popen[bytes]) -> None:
    """Ask the group of these servers to stop as Ctrl-C does, and wait until it did."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(servers.pid, signal.SIGINT)
    servers.wait()
    while any(_lives_in(servers.pid, process) for process in psutil.process_iter()):
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _lives_in(group: int, process: psutil.Process) -> bool:
    """Whether a process of this group runs. One that ended stays listed until its parent looks."""
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


if __name__ == "__main__":
    main()
