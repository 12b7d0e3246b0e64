"""What making an asset takes of a machine, by which work is spread over devices and machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fomo_dagster.experiment.execution import Execution


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What it takes on each machine that takes part.

    device: as in `Execution.device`; empty: it computes on no device of its own. devices: how many
    of those, each for a process. cpus: cores that it keeps busy beside the devices. memory_gib:
    what clusters set aside for it; None: nothing. spreads: whether it makes use of any number of
    cores. machines: how many take part.
    """

    device: str = ""
    devices: int = 0
    cpus: int = 1
    memory_gib: float | None = None
    spreads: bool = False
    machines: int = 1

    @classmethod
    def of(cls, execution: Execution) -> Needs:
        """What is computed as an experiment's `execution` says."""
        processes = execution.processes
        return cls(
            device=execution.device,
            devices=processes,
            cpus=execution.cpus or processes * (1 + execution.workers),
            memory_gib=execution.memory_gib,
            machines=execution.machines.count if execution.machines is not None else 1,
        )
