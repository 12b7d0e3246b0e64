"""The devices of this machine, and how work claims them.

FOMO_DEVICES: which devices work may claim, such as `0,1,2,3` (CUDA devices) or `cpu:2` (the CPU, by
two at once). By default every CUDA device that NVIDIA's driver shows or, where there is none, one
slot for whatever PyTorch finds.

A claim is a lease on a device, taken when something must be computed and given back at its end or
at the death of its process. CUDA devices are leased by their machine, among all homes and users;
slots of the CPU among the processes of a home.
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Protocol

from fomo_dagster.errors import InputError
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.run.pending import Place
from fomo_dagster.stopping import check
from fomo_dagster.store.leases import slots
from fomo_dagster.units import counted

SETTING = "FOMO_DEVICES"
VISIBLE = "CUDA_VISIBLE_DEVICES"
MOST_SLOTS = 1000
_SECONDS_BETWEEN_LOOKS = 0.1  # for what another process gives back
_SECONDS_TO_STOP = 0.5  # until a request to stop is seen
_FORM = re.compile(r"(?:cuda:)?(\d{1,3})|(cpu)(?::(\d{1,4}))?")
_SHARED_FOLDERS = (Path("/run/lock"), Path("/tmp"))


@dataclass(frozen=True)
class Device:
    """A device, or a slot of the CPU. name: as in `Execution.device`. visible: what CUDA is shown
    of the machine so that it is the only one; None: what there is anyway."""

    name: str
    visible: str | None = None


@dataclass(frozen=True)
class Devices:
    """What work may claim on this machine.

    cuda: each a device. cpu: so many slots. is_declared: whether a person named them; else the one
    slot of the CPU stands for whatever PyTorch finds.
    """

    cuda: tuple[Device, ...] = ()
    cpu: int = 1
    is_declared: bool = False

    @property
    def count(self) -> int:
        """How many assets may be computed at once, of those that need one device each."""
        return len(self.cuda) or self.cpu

    def at_most(self, number: int) -> Devices:
        """So many of them, of a machine without accelerators so many slots of the CPU. Raises
        `InputError` if there are not as many."""
        if not 1 <= number <= MOST_SLOTS:
            raise InputError(f"--parallel is {number}: expected a number from 1 to {MOST_SLOTS}")
        if self.cuda or self.is_declared:
            if number > self.count:
                raise InputError(
                    f"--parallel is {number}, and there are {counted(self.count, 'device')}"
                    f" ({self}): lower it, or name more in {SETTING}"
                )
            return replace(self, cuda=self.cuda[:number], cpu=min(self.cpu, number))
        return replace(self, cpu=number, is_declared=number > 1)

    def that_suit(self, needs: Needs) -> tuple[Device, ...]:
        """The devices of which work needs `needs.devices`. Raises `InputError` if there are not as
        many."""
        found = self._named(needs.device)
        if needs.devices > len(found) and (self.cuda or self.is_declared):
            raise InputError(
                f"{counted(needs.devices, 'device')} for execution.device {needs.device!r} are "
                f"needed at once, and this machine lends {len(found)} ({self}): lower "
                f"execution.processes, or name more in {SETTING}"
            )
        return found

    def _named(self, device: str) -> tuple[Device, ...]:
        # Where CUDA is there and the CPU is asked for, CUDA is hidden.
        slot = Device("cpu", "" if self.cuda or self.is_declared else None)
        if device == "cpu" or not self.cuda:
            return (slot,) * self.cpu
        if device in ("auto", "cuda"):
            return self.cuda
        return tuple(one for one in self.cuda if one.name == device)

    def __str__(self) -> str:
        if self.cuda:
            return ", ".join(device.name for device in self.cuda)
        return f"cpu:{self.cpu}"


def devices_here() -> Devices:
    """What FOMO_DEVICES names, or else what there is. Raises `InputError` for a value that names no
    device, or one that is not there."""
    if os.environ.get("FOMO_TRAINING_SLOTS"):
        raise InputError(
            f"FOMO_TRAINING_SLOTS is no setting any more: {SETTING}=cpu:2 lends the CPU to two at "
            f"once, and {SETTING}=0,1 two CUDA devices"
        )
    there = _cuda_devices()
    named = os.environ.get(SETTING, "").strip()
    if not named:
        return Devices(cuda=there)
    cuda: list[Device] = []
    cpu = 0
    for part in named.split(","):
        found = _FORM.fullmatch(part.strip())
        if found is None:
            raise InputError(
                f"{SETTING} is {named!r}: expected CUDA devices such as 0,1 or slots of the CPU "
                "such as cpu:2"
            )
        if found[2]:
            cpu += int(found[3] or 1)
            continue
        index = int(found[1])
        if index >= len(there):
            known = f"cuda:0 to cuda:{len(there) - 1}" if there else "none"
            raise InputError(
                f"{SETTING} is {named!r}, and this machine has no CUDA device {index}: the driver "
                f"shows {known}"
            )
        if there[index] in cuda:
            raise InputError(f"{SETTING} is {named!r}: it names device {index} twice")
        cuda.append(there[index])
    if not 0 <= cpu <= MOST_SLOTS or not (cuda or cpu):
        raise InputError(
            f"{SETTING} is {named!r}: expected 1 to {MOST_SLOTS} slots of the CPU, not {cpu}"
        )
    return Devices(tuple(cuda), max(cpu, 1), is_declared=True)


def _cuda_devices() -> tuple[Device, ...]:
    """Those that CUDA would show this process, without waking it."""
    shown = os.environ.get(VISIBLE)
    tokens = [str(index) for index in range(_driver_count())]
    if shown is not None:
        tokens = [token.strip() for token in shown.split(",") if token.strip()] if tokens else []
    return tuple(Device(f"cuda:{index}", token) for index, token in enumerate(tokens))


@cache
def _driver_count() -> int:
    """How many devices NVIDIA's driver shows, by its management library; 0 without one."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0
    number = ctypes.c_uint(0)
    if library.nvmlInit_v2() != 0:
        return 0
    try:
        found = library.nvmlDeviceGetCount_v2(ctypes.byref(number))
        return number.value if found == 0 else 0
    finally:
        library.nvmlShutdown()


@dataclass(frozen=True)
class Lent:
    """What was lent to work.

    devices: those of this machine; empty where a cluster decides. sharing: how many such works
    divide the cores of a machine among themselves. cpus: cores of its own, where a cluster gives
    it some; None: all. waited: whether that took waiting.
    """

    devices: tuple[Device, ...] = ()
    sharing: int = 1
    cpus: int | None = None
    waited: bool = False

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables by which a process sees just what was lent."""
        visible = [device.visible for device in self.devices if device.visible is not None]
        return {VISIBLE: ",".join(filter(None, visible))} if visible else {}


class Lender(Protocol):
    """Lends devices."""

    def lend(
        self, needs: Needs, note: str, waiting: Callable[[Sequence[str]], None], place: Place
    ) -> AbstractContextManager[Lent]:
        """Lends what is needed, whichever is free first. In this process, the first place goes
        first. `waiting` is told who has what is needed. Raises `InputError` where there is
        never as much."""


@dataclass
class Claim:
    """A claim on devices for work. Within `held`, `lent` is what it has."""

    needs: Needs
    lender: Lender
    note: str
    waiting: Callable[[Sequence[str]], None]
    place: Place = field(default_factory=Place)
    lent: Lent = field(default_factory=Lent)
    used: set[str] = field(default_factory=set)
    """The kinds of devices that it ever held, such as `cuda`."""
    waited: float = 0.0
    """Seconds that it took to get them."""

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Holds as many devices as are needed; gives whether that took waiting."""
        check()
        asked = time.monotonic()
        with (
            self.place.asking(),
            self.lender.lend(self.needs, self.note, self.waiting, self.place) as self.lent,
        ):
            self.waited += time.monotonic() - asked
            self.used |= {device.name.partition(":")[0] for device in self.lent.devices}
            try:
                yield self.lent.waited
            finally:
                self.lent = Lent()


@dataclass(frozen=True)
class Lending:
    """Lends the devices of this machine. home: the folder of the leases of a home."""

    devices: Devices
    home: Path

    @contextmanager
    def lend(
        self,
        needs: Needs,
        note: str,
        waiting: Callable[[Sequence[str]], None],
        place: Place,
    ) -> Iterator[Lent]:
        """As `Lender.lend`."""
        if not needs.devices:
            yield Lent()
            return
        suitable = self.devices.that_suit(needs)
        # where PyTorch decides what there is, all processes of one work share the machine's slot
        wanted = min(needs.devices, len(suitable))
        shared = suitable[0].visible not in (None, "")
        folder = _shared_folder() if shared else self.home / _this_machine() / "cpu"
        by_path = {
            folder / (f"cuda_{_as_name(device.visible or '')}" if shared else f"slot_{number}"):
            device
            for number, device in enumerate(suitable)
        }  # fmt: skip
        turns = _turns(folder)
        try:
            with (
                turns.turn(place) as turn,
                slots(
                    list(by_path), note, waiting, count=wanted, shared=shared, turn=turn
                ) as taken,
            ):
                turn.is_over()
                devices = tuple(by_path[path] for path in taken.paths)
                on_cpu = any(device.name == "cpu" for device in devices)
                yield Lent(devices, self.devices.cpu if on_cpu else 1, waited=taken.waited)
        finally:
            turns.wake()


@dataclass(eq=False)
class Turn:
    """A place in the queue of this process for devices."""

    turns: Turns
    place: Place
    order: tuple[float, int]
    woken: threading.Event = field(default_factory=threading.Event)

    def is_next(self) -> bool:
        """Whether nothing else goes first, not even what may be about to ask."""
        return self.turns.is_first(self) and not self.place.must_wait()

    def wait(self) -> None:
        """Of many that wait, only the first looks often: looks take time from what computes."""
        first = self.turns.is_first(self)
        self.woken.wait(_SECONDS_BETWEEN_LOOKS if first else _SECONDS_TO_STOP)
        self.woken.clear()

    def is_over(self) -> None:
        self.turns.leave(self)


@dataclass(eq=False)
class Turns:
    """Who of this process waits for devices of a kind, by (minus the priority, number)."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: dict[tuple[float, int], Turn] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=count)

    def is_first(self, turn: Turn) -> bool:
        """Whether nothing that waits goes before."""
        with self.lock:
            return min(self.waiting) == turn.order

    def leave(self, turn: Turn) -> None:
        """It waits no more, so that another may be the first."""
        with self.lock:
            self.waiting.pop(turn.order, None)
        self.wake()

    def wake(self) -> None:
        """Have the first look, for what this process had is free. Were all to look, each of many
        would take time from the others."""
        with self.lock:
            if self.waiting:
                self.waiting[min(self.waiting)].woken.set()

    @contextmanager
    def turn(self, place: Place) -> Iterator[Turn]:
        """Within it, work stands in the queue at its place."""
        with self.lock:
            turn = Turn(self, place, (-place.priority, next(self.numbers)))
            self.waiting[turn.order] = turn
        try:
            yield turn
        finally:
            turn.is_over()

    def wait(
        self, place: Place, take: Callable[[], bool], waiting: Callable[[Sequence[str]], None]
    ) -> bool:
        """Wait for this place's turn, and until `take` takes what is wanted; whether that took
        waiting. For what this process counts itself."""
        waited = False
        with self.turn(place) as turn:
            while not (turn.is_next() and take()):
                if not waited:
                    waiting(["other assets of this run"])
                waited = True
                check()
                turn.wait()
        return waited


@cache
def _turns(folder: Path) -> Turns:
    return Turns()


@cache
def _shared_folder() -> Path:
    """Where all users of this machine see each other's leases."""
    for folder in _SHARED_FOLDERS:
        if folder.is_dir() and folder.stat().st_mode & 0o1777 == 0o1777:
            return folder / "fomo_dagster"
    return _SHARED_FOLDERS[-1] / "fomo_dagster"


def _this_machine() -> str:
    return _as_name(socket.gethostname())


def _as_name(text: str) -> str:
    return re.sub(r"[^\w.-]", "_", text)
