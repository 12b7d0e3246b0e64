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
    forked.prepare()
    started = forked.start(tmp_path / "not_there", {})
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    assert started.wait() == LOST
    assert forked.start(tmp_path / "not_there", {}).wait() == 1  # of another one
    failure = _failure(tmp_path, 1, [], started.poll())
    assert str(failure).startswith("the process from which all others are forked was ended")
    assert str(tmp_path / "output.txt") in str(failure)
