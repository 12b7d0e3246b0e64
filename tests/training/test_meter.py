"""What a training did cost where it ran, over all processes that it took."""

import sys
import time
from types import SimpleNamespace

import pytest
import torch

from fomo_dagster.distributed.process_group import ProcessGroup
from fomo_dagster.training.meter import Meter, _Energy

CPU = torch.device("cpu")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells")
def test_memory_of_a_process_is_what_it_grew_by_and_not_what_was_there():
    there = torch.ones(30 * 2**20)  # 120 MiB
    meter = Meter(CPU)
    held = torch.ones(40 * 2**20)  # 160 MiB
    del held
    peak = meter.costs()["peak_process_memory_bytes"]
    assert 150 * 2**20 < peak < 220 * 2**20
    del there


def test_a_resumed_training_goes_on_with_what_was_spent():
    first = Meter(CPU)
    time.sleep(0.02)
    spent = first.state()
    assert "earlier_seconds" not in first.costs()
    second = Meter(CPU)
    second.restore(spent | {"peak_process_memory_bytes": 2.0**50})
    costs = second.costs()
    assert costs["earlier_seconds"] == spent["seconds"] >= 0.02
    assert costs["peak_process_memory_bytes"] == 2**50
    assert second.state()["seconds"] >= spent["seconds"]


def test_a_resume_point_that_does_not_tell_what_was_spent_is_gone_on_with():
    meter = Meter(CPU)
    meter.restore({})
    assert "earlier_seconds" not in meter.costs()


def test_energy_is_the_devices_own_counter_from_then_on(monkeypatch):
    counter = iter([5_000_000, 5_250_000])  # millijoules
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(counter),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="abc")
    )
    assert _Energy(torch.device("cuda")).joules() == 250.0


def test_energy_that_nobody_tells_is_not_there():
    assert _Energy(CPU).joules() is None
    assert "energy_joules" not in Meter(CPU).costs()


def test_processes_tell_the_memory_of_one_and_the_energy_of_all():
    class Pair(ProcessGroup):
        def all_reduce_max(self, *numbers):
            return [n if isinstance(n, bool) else max(n, 7 * 2**30) for n in numbers]

        def all_reduce_sum(self, tensors):
            for tensor in tensors:
                tensor *= 2

    meter = Meter(CPU, Pair(world_size=2))
    meter._energy = SimpleNamespace(joules=lambda: 3.0)
    meter.restore({"seconds": 1.0, "energy_joules": 10.0, "told_energy": True})
    costs = meter.costs()
    assert costs["energy_joules"] == 16
    assert costs["peak_process_memory_bytes"] == 7 * 2**30
    meter._energy = SimpleNamespace(joules=lambda: None)
    assert "energy_joules" not in meter.costs()
