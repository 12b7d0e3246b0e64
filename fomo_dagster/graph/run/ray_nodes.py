"""What Ray tasks do on the nodes of a cluster.

Ray finds these functions by their names, so each node uses those of its own installation.
"""

from __future__ import annotations

import fcntl
import socket
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from fomo_dagster.errors import InputError
from fomo_dagster.graph.run.installed import differences, installed
from fomo_dagster.graph.run.processes import LIVES_WITH, TASK, Forked, Started, launched

_SECONDS_TO_STOP = 0.2


def work(
    here: str, environment: Mapping[str, str], command: Sequence[str], expected: Mapping[str, str]
) -> int:
    """Do the task in `here` by processes of this node; the status of the first. They end with this
    one, however it ends."""
    node = socket.gethostname()
    if different := differences(installed(), expected):
        raise InputError(f"{node} has other versions: {different}: install the same on all nodes")
    if not (Path(here) / TASK).exists():
        raise InputError(not_seen(Path(here).parents[1], node))
    with tempfile.NamedTemporaryFile(prefix="fomo_alive_") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        variables = {**environment, LIVES_WITH: alive.name}
        if command:
            process: Started = launched(command, Path(here), variables)
        else:
            process = _forked().start(Path(here), variables)
        try:
            while (status := process.poll(_SECONDS_TO_STOP)) is None:
                pass  # where Ray cancels this task, Python raises it between two waits
            return status
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


@cache
def _forked() -> Forked:
    return Forked()


def preload() -> None:
    """Begin to import what `work` needs, in the process that it forks from."""
    _forked().preload()


def look(home: str, token: str) -> tuple[Mapping[str, str], bool]:
    """What is installed on the node, and whether it sees the home."""
    return installed(), (Path(home) / token).exists()


def not_seen(home: Path, node: str) -> str:
    """What is said where a node does not see the home."""
    return (
        f"FOMO_HOME is {home}, and {node} does not see it: put it on a file system that all nodes "
        "of the Ray cluster share, in the same place"
    )
