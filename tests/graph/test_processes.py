"""Processes that are forked for work, and what is said where they are lost."""

import os
import signal
from multiprocessing import forkserver

from fomo_dagster.graph.run import processes
from fomo_dagster.graph.run.launching import _failure
from fomo_dagster.graph.run.processes import LOST, Forked


def test_the_end_of_the_forking_process_is_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_PRELOADED", [])
    forked = Forked()
    forked.preload()
    waits = tmp_path / "waits"
    waits.mkdir()
    os.mkfifo(waits / "output.txt")  # nobody reads what it wants to write
    started = forked.start(waits, {})
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    assert started.wait() == LOST
    os.close(os.open(waits / "output.txt", os.O_RDONLY | os.O_NONBLOCK))  # so that it ends
    assert forked.start(tmp_path / "not_there", {}).wait() == 1  # of another one
    failure = _failure(tmp_path, 1, [], started.poll())
    assert str(failure).startswith("the process from which all others are forked was ended")
    assert str(tmp_path / "output.txt") in str(failure)
