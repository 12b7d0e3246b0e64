"""Work claims a device of its machine when there is something to compute; hits wait for none."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch

from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.run import devices, launching
from fomo_dagster.graph.run.clusters import LocalCluster
from fomo_dagster.graph.run.devices import Claim, Lending, devices_here
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import Run, RunContext
from fomo_dagster.progress import Callbacks

OTHER = "deadbeef-1234"  # a run


@contextmanager
def taken(project, graph):
    """The machine's only device, by another."""
    other = RunContext(graph, project.home, run=Run(id=OTHER))
    with other.claim(graph.nodes["toy/trained_002"]).held():
        yield


@pytest.mark.slow
def test_a_job_of_nothing_but_hits_waits_for_no_training(finished_project, capsys):
    for head in finished_project.home.root.glob("heads/toy/*.json"):
        head.unlink()
    with taken(finished_project, finished_project.graph()):
        run_experiment("toy", [])
    output = capsys.readouterr().out
    assert "hit      toy/trained_003" in output
    assert "waiting" not in output


@pytest.mark.slow
def test_what_trains_nothing_waits_for_no_training(finished_project):
    graph = finished_project.graph()
    (folder,) = finished_project.home.root.glob("store/scores")
    folder.rename(folder.with_name(".gone"))
    with taken(finished_project, graph):
        assert materialise("toy/scores", RunContext(graph, finished_project.home)).computed


ANOTHERS = f"process {os.getpid()}, which is making toy/trained_002 in run deadbeef"


@pytest.mark.slow
@pytest.mark.parametrize("run", ["", "beef-1234", OTHER])
def test_who_wants_what_another_trains_waits_with_it_and_takes_the_hit(finished_project, run):
    finished_project.write("toy", optimiser={"learning_rate": 5e-4})
    graph, told, outcomes = finished_project.graph(), [], []

    def train():
        callbacks = Callbacks(waiting=told.append)
        context = RunContext(graph, finished_project.home, callbacks=callbacks, run=Run(id=run))
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
    holder = "toy/trained_002 of this run" if run == OTHER else ANOTHERS
    assert sorted(told) == [
        f"a device, taken by {holder}",
        "another asset of this run, which is making the same",
    ]
    assert sorted(outcome.head.status for outcome in outcomes) == ["computed", "hit"]


@pytest.mark.slow
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
        f"waiting  toy/trained_001  for a device, taken by {ANOTHERS}"
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


def cuda(monkeypatch, count, visible=None):
    """As on a machine with so many CUDA devices."""
    monkeypatch.setattr(devices, "_driver_count", lambda: count)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


@pytest.mark.parametrize(
    ("setting", "there", "visible", "lent"),
    [
        ("", 0, None, "cpu:1"),
        ("", 2, None, "cuda:0, cuda:1"),
        ("", 8, "6,7", "cuda:0, cuda:1"),
        ("", 8, "", "cpu:1"),
        ("1,0", 2, None, "cuda:1, cuda:0"),
        ("cuda:1", 2, None, "cuda:1"),
        ("cpu:2", 2, None, "cpu:2"),
        (" 0 , cpu:3", 1, None, "cuda:0"),
        ("cpu", 0, None, "cpu:1"),
    ],
)
def test_the_devices_that_are_lent(monkeypatch, setting, there, visible, lent):
    cuda(monkeypatch, there, visible)
    monkeypatch.setenv("FOMO_DEVICES", setting)
    assert str(devices_here()) == lent


@pytest.mark.parametrize("setting", ["2", "0,0", "gpu", "cpu:0", "cpu:9999", "-1", "0;1", ","])
def test_devices_that_there_are_not_are_refused(monkeypatch, setting):
    cuda(monkeypatch, 2)
    monkeypatch.setenv("FOMO_DEVICES", setting)
    with pytest.raises(InputError, match="FOMO_DEVICES is"):
        devices_here()


def test_the_old_setting_is_refused_with_the_new_one(monkeypatch):
    monkeypatch.setenv("FOMO_TRAINING_SLOTS", "2")
    with pytest.raises(InputError, match="FOMO_DEVICES=cpu:2"):
        devices_here()


def test_no_more_are_used_at_once_than_asked_for_or_there(monkeypatch):
    cuda(monkeypatch, 3)
    assert str(devices_here().at_most(2)) == "cuda:0, cuda:1"
    with pytest.raises(InputError, match="--parallel is 4, and there are 3 devices"):
        devices_here().at_most(4)
    cuda(monkeypatch, 0)
    assert str(devices_here().at_most(4)) == "cpu:4"
    for number in (0, -1, 100_000):
        with pytest.raises(InputError, match="--parallel is"):
            devices_here().at_most(number)


@pytest.mark.parametrize(
    ("device", "count", "environment"),
    [
        ("auto", 1, {"CUDA_VISIBLE_DEVICES": "6"}),
        ("cuda", 2, {"CUDA_VISIBLE_DEVICES": "6,GPU-1f"}),
        ("cuda:1", 1, {"CUDA_VISIBLE_DEVICES": "GPU-1f"}),
        ("cpu", 1, {"CUDA_VISIBLE_DEVICES": ""}),
    ],
)
def test_a_process_sees_what_was_claimed_for_it(monkeypatch, tmp_path, device, count, environment):
    cuda(monkeypatch, 8, "6,GPU-1f")
    monkeypatch.setattr(devices, "_shared_folder", lambda: tmp_path / "shared")
    lending = Lending(devices_here(), tmp_path)
    claim = Claim(Needs(device=device, devices=count), lending, "me", lambda notes: None)
    with claim.held() as waited:
        assert (claim.lent.environment, waited) == (environment, False)
        other = Claim(Needs(device="auto", devices=2), lending, "you", interrupted)
        with pytest.raises(KeyboardInterrupt) if device != "cpu" else nullcontext(), other.held():
            pass
    assert claim.lent.environment == {}


def test_a_process_that_sees_only_its_device_needs_none_of_the_others(monkeypatch, project):
    """The setting names those of the machine, and the process has the claimed one's variables."""
    cuda(monkeypatch, 8, "5")
    monkeypatch.setenv("FOMO_DEVICES", "4,5")
    assert RunContext(project.graph(), project.home).run.cluster == LocalCluster()


def test_slots_of_the_cpu_hide_cuda_and_divide_the_cores(monkeypatch, tmp_path):
    cuda(monkeypatch, 1)
    monkeypatch.setenv("FOMO_DEVICES", "cpu:2")
    lending = Lending(devices_here(), tmp_path)
    claim = Claim(Needs(device="auto", devices=2), lending, "me", lambda notes: None)
    with claim.held():
        assert (claim.lent.environment, claim.lent.sharing) == ({"CUDA_VISIBLE_DEVICES": ""}, 2)


def test_what_is_made_here_has_its_share_of_the_cores(monkeypatch, project):
    monkeypatch.setenv("FOMO_DEVICES", "cpu:2")
    project.write("toy", execution={"device": "auto"})
    graph = project.graph()
    context = RunContext(graph, project.home, run=Run(cluster=LocalCluster(devices_here())))
    node, threads = graph.nodes["toy/trained_001"], torch.get_num_threads()
    torch.set_num_threads(4)
    claim = context.claim(node)
    with claim.held(), launching._here(node, claim.lent) as own:
        assert (own.execution.device, torch.get_num_threads()) == ("cpu", 2)
    assert torch.get_num_threads() == 4
    torch.set_num_threads(threads)


def interrupted(notes):
    assert notes == ["me"]
    raise KeyboardInterrupt


def test_work_that_needs_more_devices_than_there_are_is_refused_at_once(monkeypatch, tmp_path):
    cuda(monkeypatch, 2)
    needs = Needs(device="cuda", devices=3)
    claim = Claim(needs, Lending(devices_here(), tmp_path), "me", lambda notes: None)
    with pytest.raises(InputError, match=r"3 devices .* are needed .* lends 2"), claim.held():
        pass


@pytest.mark.parametrize(
    ("execution", "cpus", "memory_gib"),
    [
        ({}, 1, None),
        ({"processes": 2, "workers": 3}, 8, None),
        ({"processes": 2, "workers": 3, "cpus": 5, "memory_gib": 1.5}, 5, 1.5),
    ],
)
def test_what_a_cluster_sets_aside_is_what_the_experiment_says(execution, cpus, memory_gib):
    needs = Needs.of(Execution(**execution))
    assert (needs.cpus, needs.memory_gib, needs.machines) == (cpus, memory_gib, 1)
