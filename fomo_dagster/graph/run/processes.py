"""Processes for work: started by torchrun, or forked from one that has imported what is heavy.

A process that imports PyTorch and OpenCLIP by itself takes seconds before it does anything.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

WORKER = "fomo_dagster.cli.worker"
OUTPUT = "output.txt"
STOP = "stop"  # holds the name of a signal once one came
RESULT = "result.json"  # by the first process: cost, or where it was stopped
TASK = "task.json"
LOST = 255  # the status, to `multiprocessing`, of a process whose forking process was ended
LIVES_WITH = "FOMO_LIVES_WITH"  # the file whose lock is held as long as a process may live
_PRELOADED = [
    "torch", "open_clip", "polars", "safetensors.torch", WORKER, "fomo_dagster.cli.main",
    "fomo_dagster.data.batches", "fomo_dagster.graph.work.stage",
    "fomo_dagster.graph.work.stage_pools", "fomo_dagster.graph.work.text_embeddings",
    "fomo_dagster.graph.work.replay_features", "fomo_dagster.evaluation.encoding",
    "fomo_dagster.evaluation.evaluate", "fomo_dagster.merging.techniques",
]  # fmt: skip
_SECONDS_TO_NOTICE, _SECONDS_BETWEEN_TRIES = 10.0, 0.05  # that the process that forks is gone
ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}


class Started(Protocol):
    """A process that was started."""

    def poll(self, within: float = 0.0) -> int | None:
        """Its exit status, or minus the signal that ended it, as soon as it has ended; None if it
        lives on after so many seconds."""

    def kill(self) -> None:
        """End it."""

    def wait(self) -> int:
        """Wait for its end; gives its status."""


def launched(command: Sequence[str], here: Path, environment: Mapping[str, str]) -> Started:
    """Start a command, such as torchrun's."""
    with (here / OUTPUT).open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C of a terminal is the launcher's, which tells them
        )  # fmt: skip
    return _Command(process)


class _Command:
    """A process of `subprocess` as a `Started`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def poll(self, within: float = 0.0) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(within)
        return None

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int:
        return self._process.wait()


class Forked:
    """Starts workers on this machine, forked from a clean process that has no threads and knows no
    device."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)

    def preload(self) -> None:
        """As `Cluster.preload`."""
        from multiprocessing.forkserver import ensure_running

        ensure_running()

    def start(self, here: Path, environment: Mapping[str, str]) -> Started:
        """Start a process that does the task in `here`, where its output goes. environment:
        variables that it has besides those of this process."""
        variables = {**os.environ, **environment, **ALONE}
        until = time.monotonic() + _SECONDS_TO_NOTICE
        while True:
            process = self._context.Process(target=_work, args=(str(here), variables))
            try:
                process.start()
            except ConnectionRefusedError:  # what forks was just ended, and still seems to live
                if time.monotonic() > until:
                    raise
                time.sleep(_SECONDS_BETWEEN_TRIES)
            else:
                return _Process(process)


class _Process:
    """A process of `multiprocessing` as a `Started`."""

    def __init__(self, process: multiprocessing.context.ForkServerProcess) -> None:
        self._process = process

    def poll(self, within: float = 0.0) -> int | None:
        self._process.join(within)
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int:
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode


def _work(here: str, environment: Mapping[str, str]) -> None:
    """What a forked process does."""
    os.setsid()  # Ctrl-C of a terminal is the launcher's, which tells it
    output = os.open(Path(here) / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.environ.clear()
    os.environ.update(environment)
    importlib.import_module(WORKER).main(Path(here) / TASK)
