"""What a computation did cost where it ran: wall time, peak memory and energy.

None of it is identity, and none changes what is computed. Memory is what PyTorch allocated on a
CUDA device, and by how much the process's resident memory grew at its peak. Energy is all that the
device used meanwhile, where NVML tells. Of processes that train together it is the memory of the
one that takes most, and the energy of all their devices.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import torch

from fomo_dagster.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from fomo_dagster.store.process_memory import ProcessMemory

logger = logging.getLogger(__name__)


class Meter:
    """Measures from its making on; a resumed training continues with what was spent before.

    All processes of `group` must ask it for the same, in the same order.
    """

    def __init__(self, device: torch.device, group: ProcessGroup = SINGLE_PROCESS) -> None:
        self._device = device
        self._group = group
        self._started = time.monotonic()
        self._energy = _Energy(device)
        self._before: dict[str, float] = {}
        self._memory = ProcessMemory()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def costs(self) -> dict[str, float]:
        """Figures so far, those of before a resume point too; what nobody tells is not there.

        `earlier_seconds` (before that), `energy_joules`, `peak_device_memory_bytes`
        and `peak_process_memory_bytes`.
        """
        before = self._before
        costs: dict[str, float] = {}
        if "seconds" in before:
            costs["earlier_seconds"] = before["seconds"]
        joules = self._energy.joules()
        (is_unknown,) = self._group.all_reduce_max(joules is None)
        if not is_unknown and before.get("told_energy", True):
            total = torch.tensor([joules], dtype=torch.float64)
            self._group.all_reduce_sum([total])
            costs["energy_joules"] = float(total) + before.get("energy_joules", 0.0)
        for name, peak in self._peaks().items():
            (highest,) = self._group.all_reduce_max(peak)
            costs[name] = max(highest, int(before.get(name, 0)))
        return costs

    def state(self) -> dict[str, float]:
        """What was spent so far, for a resume point."""
        costs = self.costs()
        earlier = costs.pop("earlier_seconds", 0.0)
        spent = costs | {"seconds": earlier + time.monotonic() - self._started}
        return spent | {"told_energy": "energy_joules" in costs}

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from `state`; an empty one is of a resume point that did not tell."""
        self._before = dict(state)

    def _peaks(self) -> dict[str, int]:
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device)
            return self._memory.costs() | {"peak_device_memory_bytes": peak}
        return self._memory.costs()


class _Energy:
    """A device's own counter, from now on."""

    def __init__(self, device: torch.device) -> None:
        self._read: Any = None
        if device.type != "cuda":
            return
        try:
            import pynvml

            pynvml.nvmlInit()
            uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid.encode())
            self._start = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)  # millijoules
            self._read = lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except Exception as error:  # no driver, a card that does not count, a MIG slice
            logger.debug("the energy of %s is not known: %s", device, error)

    def joules(self) -> float | None:
        return None if self._read is None else (self._read() - self._start) / 1000
