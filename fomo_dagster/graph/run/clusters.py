"""What computes: this machine alone, or a cluster of several. It lends devices to work, and starts
the processes that do it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.run.devices import Devices, Lender, Lending
from fomo_dagster.graph.run.processes import Forked, Started, launched
from fomo_dagster.progress import ignore_text


class MachineLostError(Exception):
    """A machine went away with the process that worked there. What that kept can go on."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Processes to start.

    asset: what they make. here: the folder with their task, where their output goes. environment:
    variables that they have besides those of this process. command: what starts several of them on
    one machine; empty: one does the task. waiting: told what their start waits for.
    """

    asset: str
    here: Path
    needs: Needs
    environment: Mapping[str, str]
    command: Sequence[str] = ()
    waiting: Callable[[str], None] = ignore_text


class Cluster(Protocol):
    """One machine, or several."""

    @property
    def executor(self) -> str:
        """The value of FOMO_EXECUTOR that it is."""

    @property
    def slots(self) -> int:
        """How many assets that need one device each can be computed at once."""

    @property
    def has_workers(self) -> bool:
        """Whether what takes more than a moment is done by processes of its own; else by the
        process of the run, unless it takes several."""

    def check(self, needs: Needs) -> None:
        """Raises `InputError` where this is never there, however long one waits."""

    def lender(self, leases: Path) -> Lender:
        """Who lends its devices. leases: the folder for those of a home."""

    def preload(self) -> None:
        """Begin with what takes time before the first start."""

    def check_home(self, home: Path) -> None:
        """Raises `InputError` where work on the home at this path could not be done."""

    def start(self, launch: Launch) -> Started:
        """Start processes where there is room. Their `poll` raises `MachineLostError`."""


@dataclass(frozen=True)
class LocalCluster:
    """This machine. forked: what starts a process for whatever takes more than a moment."""

    devices: Devices = field(default_factory=Devices)
    forked: Forked | None = None

    @property
    def executor(self) -> str:
        return "in_process" if self.forked is None else "processes"

    @property
    def slots(self) -> int:
        return self.devices.count

    @property
    def has_workers(self) -> bool:
        return self.forked is not None

    def check(self, needs: Needs) -> None:
        if needs.machines > 1:
            return  # this one may only launch it
        is_named = needs.device not in ("", "cpu", "auto")
        if is_named or (needs.device == "auto" and needs.devices > 1):
            from fomo_dagster.models.devices import check_device  # with PyTorch

            check_device(needs.device, needs.devices)
        self.devices.that_suit(needs)

    def lender(self, leases: Path) -> Lender:
        return Lending(self.devices, leases / "devices")

    def preload(self) -> None:
        if self.forked is not None:
            self.forked.preload()

    def check_home(self, home: Path) -> None:
        """It is on this machine."""

    def start(self, launch: Launch) -> Started:
        if launch.command:
            return launched(launch.command, launch.here, launch.environment)
        assert self.forked is not None
        return self.forked.start(launch.here, launch.environment)
