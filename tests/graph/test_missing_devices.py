"""A device that cannot be is refused at load; one that is not here, before anything is made."""

import sys

import pytest
import torch

from fomo_dagster.cli.main import main
from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.graph.run.clusters import LocalCluster
from fomo_dagster.graph.run.missing_devices import missing_devices

MACHINES = {"count": 2, "rendezvous": "node01:29500", "start": ["srun"], "interface": "lo"}
HERE = "auto", "cpu", "mps", "cuda", "cuda:0", "cuda:12"


def cuda(monkeypatch, count):
    """Have this machine that many CUDA devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize("device", HERE)
def test_what_can_be_a_device_somewhere_is_taken(device):
    assert Execution(device=device).device == device


@pytest.mark.parametrize(
    "device", ["gpu", "cpux", "", "cpu:0", "cuda:", "cuda:-1", "cuda:01", " cpu"]
)
def test_what_can_never_be_a_device_is_refused_at_load(project, device):
    project.write("toy", execution={"device": device})
    said = rf"line \d+.*: execution.device is '{device}': a device is auto, cpu, cuda, cuda:N for"
    with pytest.raises(InputError, match=said):
        project.load()


def said_of(project, **execution):
    project.write("toy", execution=execution)
    request = resolve_request("toy", [])
    return missing_devices(request.plan(), request.graph, LocalCluster())


def test_a_device_that_is_not_here_ends_a_run_before_anything_is_made(project, monkeypatch):
    cuda(monkeypatch, 1)
    project.write("toy", execution={"device": "cuda:1"})
    said = r"backbones/toy: execution.device 'cuda:1' does not exist on this machine: .*cuda:0"
    with pytest.raises(InputError, match=said):
        run_experiment("toy", [])
    assert not list(project.home.root.glob("store/[!.]*"))


def test_a_plan_for_another_machine_warns_once_and_goes_on(project, monkeypatch, capsys, caplog):
    cuda(monkeypatch, 0)
    project.write("toy", execution={"device": "cuda"})
    monkeypatch.setattr(sys, "argv", ["fomo", "plan", "toy"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert "18 to compute, 0 hits" in capsys.readouterr().out
    assert caplog.text.count("execution.device 'cuda' does not exist on this machine") == 1
    assert "`fomo run` refuses it" in caplog.text


def test_each_process_needs_a_device_of_this_machine_unless_others_make_it(project, monkeypatch):
    cuda(monkeypatch, 2)
    few = "execution.processes is 3, and this machine has 2 CUDA devices: one for each is needed"
    assert said_of(project, processes=3) == [f"backbones/toy: {few}"]
    assert said_of(project, processes=3, device="cuda") == [f"backbones/toy: {few}"]
    assert said_of(project, processes=3, device="cpu") == []
    assert said_of(project, processes=2) == []
    cuda(monkeypatch, 0)
    assert said_of(project, processes=3) == []  # on the CPU


def test_more_devices_than_are_lent_are_refused_before_anything_is_made(project, monkeypatch):
    monkeypatch.setenv("FOMO_DEVICES", "cpu:2")
    project.write("toy", execution={"processes": 3})
    said = r"backbones/toy: 3 devices for execution.device 'auto' are needed at once, and this"
    with pytest.raises(InputError, match=said):
        run_experiment("toy", [])
    assert not list(project.home.root.glob("store/[!.]*"))
    assert said_of(project, processes=3, device="cuda", machines=MACHINES) == []


def test_a_device_is_not_missed_where_everything_is_there(finished_project, monkeypatch):
    cuda(monkeypatch, 0)
    assert said_of(finished_project, device="cuda") == []
