"""As many trainings go on at once on a machine as there are slots; hits wait for none."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import InputError
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import Run, RunContext
from fomo_dagster.home import training_slots
from fomo_dagster.progress import Callbacks

pytestmark = pytest.mark.slow


@contextmanager
def taken(project, graph):
    """The machine's only slot, by another."""
    other = RunContext(graph, project.home, run=Run(id="deadbeef-1234"))
    with other.training_slot(graph.nodes["toy/trained_002"]):
        yield


def test_a_job_of_nothing_but_hits_waits_for_no_training(finished_project, capsys):
    for head in finished_project.home.root.glob("heads/toy/*.json"):
        head.unlink()
    with taken(finished_project, finished_project.graph()):
        run_experiment("toy", [])
    output = capsys.readouterr().out
    assert "hit      toy/trained_003" in output
    assert "waiting" not in output


def test_what_trains_nothing_waits_for_no_training(finished_project):
    graph = finished_project.graph()
    (folder,) = finished_project.home.root.glob("store/scores")
    folder.rename(folder.with_name(".gone"))
    with taken(finished_project, graph):
        assert materialise("toy/scores", RunContext(graph, finished_project.home)).computed


def test_who_wants_what_another_trains_waits_with_it_and_takes_the_hit(finished_project):
    finished_project.write("toy", optimiser={"learning_rate": 5e-4})
    graph, told, outcomes = finished_project.graph(), [], []

    def train():
        context = RunContext(graph, finished_project.home, callbacks=Callbacks(waiting=told.append))
        outcomes.append(materialise("toy/trained_001", context))

    threads = [threading.Thread(target=train) for _ in range(2)]
    with taken(finished_project, graph):
        for thread in threads:
            thread.start()
        while len(told) < 2 and any(thread.is_alive() for thread in threads):
            threads[0].join(0.01)
        assert not outcomes
    for thread in threads:
        thread.join(60)
    assert sorted(told, key=len) == [
        "another asset of this run, which is making the same",
        f"a training slot, taken by process {os.getpid()}, which is making toy/trained_002 in run "
        "deadbeef",
    ]
    assert sorted(outcome.head.status for outcome in outcomes) == ["computed", "hit"]


def test_a_command_says_whom_it_waits_for_and_can_be_stopped(finished_project):
    finished_project.write("toy", optimiser={"learning_rate": 5e-4})
    command = [str(Path(sys.executable).with_name("fomo")), "run", "toy"]
    with (
        taken(finished_project, finished_project.graph()),
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running,
    ):
        said = []
        for line in running.stdout:
            said.append(line.strip())
            if line.strip().startswith("waiting"):
                running.send_signal(signal.SIGTERM)
    assert running.returncode == 128 + signal.SIGTERM
    # The signal comes while the line is written: what was interrupted may be written once more.
    assert list(dict.fromkeys(line for line in said if "waiting" in line)) == [
        f"waiting  toy/trained_001  for a training slot, taken by process {os.getpid()}, which is "
        "making toy/trained_002 in run deadbeef"
    ]
    left = [path.name for path in finished_project.home.leases.rglob("*") if path.is_file()]
    assert left == []
    assert not list(finished_project.home.root.glob("store/.leases/*"))


def test_what_runs_a_model_needs_a_device(project):
    nodes = project.graph().nodes
    needy = {key for key, node in nodes.items() if node.needs is not None and node.needs.devices}
    stages = ["001", "002", "003"]
    assert needy == {
        "backbones/toy", "toy/evaluation_000",
        *(f"toy/{kind}_{stage}" for kind in ("trained", "evaluation") for stage in stages),
    }  # fmt: skip


def test_slots_that_are_no_count_are_refused(monkeypatch):
    assert training_slots() == 1
    monkeypatch.setenv("FOMO_TRAINING_SLOTS", "3")
    assert training_slots() == 3
    for value in ("0", "-1", "two", "1.5", "99999"):
        monkeypatch.setenv("FOMO_TRAINING_SLOTS", value)
        with pytest.raises(InputError, match="FOMO_TRAINING_SLOTS is"):
            training_slots()
