"""Work on the nodes of a Ray cluster.

A Ray task holds the devices and cores that an asset needs, on a node where they are free, and has
the same process do the work there that does it on one machine, forked from one that stays. What is
computed on no device and takes no more than a moment stays in the process of the run.

All nodes see one FOMO_HOME, through which the processes are told what to do and tell how they go.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fomo_dagster.errors import FomoError, InputError, TrainingError
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.run.clusters import Launch, MachineLostError
from fomo_dagster.graph.run.devices import MOST_SLOTS, VISIBLE, Lender, Lent, Turns
from fomo_dagster.graph.run.installed import differences, installed
from fomo_dagster.graph.run.pending import Place
from fomo_dagster.graph.run.processes import Started
from fomo_dagster.graph.run.ray_address import ADDRESS, probe
from fomo_dagster.graph.run.ray_nodes import look, not_seen, preload, work
from fomo_dagster.home import project_folder
from fomo_dagster.units import counted

_SECONDS_TO_START = 120.0  # of a process on each node, the first time
_SECONDS_TO_END = 60.0
_SECONDS_TO_KILL = 5.0  # of a task that was cancelled, before Ray ends its process
_SECONDS_BETWEEN_COUNTS = 2.0  # nodes come and go
_GIB = 2**30
# A node died, or what Ray itself runs there.
_LOST = (
    exceptions.NodeDiedError,
    exceptions.LocalRayletDiedError,
    exceptions.WorkerCrashedError,
    exceptions.OwnerDiedError,
    exceptions.ObjectLostError,
)


@dataclass(frozen=True)
class Room:
    """What a task holds of a node."""

    gpus: int
    cpus: int
    memory_gib: float = 0.0

    def fits(self, resources: Mapping[str, float]) -> bool:
        """Whether a node with these resources, as Ray names them, could ever hold it."""
        return (
            self.gpus <= resources.get("GPU", 0)
            and self.cpus <= resources.get("CPU", 0)
            and self.memory_gib * _GIB <= resources.get("memory", 0)
        )

    def __str__(self) -> str:
        memory = f" and {self.memory_gib:g} GiB" if self.memory_gib else ""
        gpus = f"{counted(self.gpus, 'GPU')} and " if self.gpus else ""
        return f"{gpus}{counted(self.cpus, 'CPU')}{memory}"


class RayCluster:
    """A Ray cluster that this process is connected to.

    at_most: devices that are used at once; None: as many as the cluster has. With a number, so many
    are asked for whatever the cluster has now, for one that grows on demand.
    """

    has_workers = True

    def __init__(self, at_most: int | None) -> None:
        self._at_most = at_most
        self._turns = Turns()
        self._lock = threading.Lock()
        self._taken: dict[str, int] = {"GPU": 0, "CPU": 0}
        self._devices_taken = 0
        self._counted_at, self._total = -_SECONDS_BETWEEN_COUNTS, dict[str, float]()
        self._checked: set[Path] = set()
        self._preloaded: set[str] = set()  # identifiers of nodes

    @classmethod
    def connected(cls, at_most: int | None) -> RayCluster:
        """Connect to the cluster at RAY_ADDRESS, by default the one that this machine is part of.
        Raises `InputError` if it does not answer."""
        if at_most is not None and not 1 <= at_most <= MOST_SLOTS:
            raise InputError(f"--parallel is {at_most}: expected a number from 1 to {MOST_SLOTS}")
        address = os.environ.get(ADDRESS, "").strip()
        if not ray.is_initialized():
            probe(address)
            os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # they are told here
            try:
                with _handlers_kept():
                    ray.init(
                        address or "auto", log_to_driver=False, logging_level=logging.ERROR,
                        namespace="fomo", configure_logging=False,
                    )  # fmt: skip
            except (ConnectionError, ValueError, RuntimeError, exceptions.RayError) as error:
                if not address:
                    raise InputError(
                        "FOMO_EXECUTOR is 'ray', and this machine is part of no Ray cluster: start "
                        f"one with `ray start --head`, or name another's in {ADDRESS}"
                    ) from error
                raise InputError(
                    f"{ADDRESS} is {address!r}, and no Ray cluster answers there: {error}. If it "
                    "wants tokens, set RAY_AUTH_MODE=token here too"
                ) from error
        return cls(at_most)

    @property
    def executor(self) -> str:
        return "ray"

    @property
    def slots(self) -> int:
        if self._at_most is not None:
            return self._at_most
        total = self._resources()
        return max(1, int(total.get("GPU", 0) or total.get("CPU", 0)))

    def check(self, needs: Needs) -> None:
        if needs.machines > 1:
            raise InputError(
                f"execution.machines names {needs.machines} machines, whose processes torchrun "
                "starts, and Ray places those of one: leave it out, or set FOMO_EXECUTOR=processes"
            )
        if needs.device not in ("", "auto", "cpu", "cuda"):
            raise InputError(
                f"execution.device is {needs.device!r}, a device of one machine, and Ray chooses "
                "where to compute: use auto, cuda or cpu"
            )
        room, nodes = self._room(needs), _alive()
        if not any(room.fits(node["Resources"]) for node in nodes):
            largest = max((_room_of(node) for node in nodes), key=lambda one: (one.gpus, one.cpus))
            way = "lower execution.processes, workers, cpus or memory_gib, or add a node"
            if room.gpus and not largest.gpus:
                way = (
                    "no node has a GPU: set execution.device to auto or cpu, or add a node with one"
                )
            raise InputError(
                f"it needs {room} on one node, more than any of the Ray cluster's "
                f"{counted(len(nodes), 'node')} has (the largest: {largest}): {way}"
            )

    def lender(self, leases: Path) -> Lender:
        return self

    @contextmanager
    def lend(
        self, needs: Needs, note: str, waiting: Callable[[Sequence[str]], None], place: Place
    ) -> Iterator[Lent]:
        """As `Lender.lend`. Which devices these are, Ray decides; here no more is begun than it has
        room for, so that the greatest priority goes first."""
        self.check(needs)
        room = self._room(needs)
        if not needs.devices:
            yield Lent(cpus=room.cpus)
            return
        waited = self._turns.wait(place, lambda: self._take(room, needs.devices), waiting)
        try:
            yield Lent(cpus=room.cpus, waited=waited)
        finally:
            self._take(Room(-room.gpus, -room.cpus), -needs.devices)

    def preload(self) -> None:
        """One process of each node, which Ray then gives the first work there, begins to import."""
        for node in _alive():
            if node["NodeID"] not in self._preloaded:
                self._preloaded.add(node["NodeID"])
                _on(node, preload).remote()

    def check_home(self, home: Path) -> None:
        """Raises `InputError` where a node has other versions, or does not see the home."""
        with self._lock:
            if home not in self._checked:
                _check_nodes(home)
                self._checked.add(home)

    def start(self, launch: Launch) -> Started:
        self.check_home(launch.here.parents[1])
        room = self._room(launch.needs)
        environment = {
            **{name: value for name, value in os.environ.items() if name.startswith("FOMO_")},
            "FOMO_PROJECT": str(project_folder()),
            **launch.environment,
        }
        if not room.gpus:
            environment[VISIBLE] = ""
        task = _remote(work).options(
            name=launch.asset, num_gpus=room.gpus, num_cpus=room.cpus,
            memory=int(room.memory_gib * _GIB) or None, max_retries=0,
        )  # fmt: skip
        reference = task.remote(str(launch.here), environment, list(launch.command), installed())
        return _RayTask(reference)

    def _room(self, needs: Needs) -> Room:
        gpus = needs.devices if needs.device in ("auto", "cuda") else 0
        if needs.device == "auto" and not self._resources().get("GPU"):
            gpus = 0
        cpus = needs.cpus
        if needs.spreads:  # half a node, so that others fit beside it
            cpus = (max(_room_of(node).cpus for node in _alive()) + 1) // 2
        return Room(gpus, max(1, cpus), needs.memory_gib or 0.0)

    def _take(self, room: Room, devices: int) -> bool:
        """Count what work takes, if there is room; what it gives back counts less than nothing."""
        kind, number = ("GPU", room.gpus) if room.gpus else ("CPU", room.cpus)
        total = self._resources().get(kind, 0)
        with self._lock:
            if devices > 0:
                most = self._at_most
                if (
                    most is not None
                    and self._devices_taken
                    and self._devices_taken + devices > most
                ):
                    return False
                if most is None and self._taken[kind] and self._taken[kind] + number > total:
                    return False
            self._taken[kind] += number
            self._devices_taken += devices
            return True

    def _resources(self) -> Mapping[str, float]:
        with self._lock:
            if time.monotonic() - self._counted_at >= _SECONDS_BETWEEN_COUNTS:
                self._total = ray.cluster_resources()  # type: ignore[no-untyped-call]
                self._counted_at = time.monotonic()
            return self._total


class _RayTask:
    """A Ray task as a `Started`."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference
        self._status: int | None = None
        self._is_killed = False  # from here: what Ray then says is no loss of a machine

    def poll(self, within: float = 0.0) -> int | None:
        """Raises `MachineLostError` where the node is lost, and what the node refuses."""
        if self._status is None and ray.wait([self._reference], timeout=within)[0]:
            self._status = -signal.SIGKILL  # what is said of one that is lost
            if not self._is_killed:
                self._status = _status_of(self._reference)
        return self._status

    def kill(self) -> None:
        """It ends its processes itself; where it does not, waiting for it ends it."""
        self._is_killed = True
        self._cancel(force=False)

    def wait(self) -> int:
        if not ray.wait([self._reference], timeout=_SECONDS_TO_KILL)[0]:
            self._cancel(force=True)
            ray.wait([self._reference], timeout=_SECONDS_TO_END)
        return -signal.SIGKILL

    def _cancel(self, *, force: bool) -> None:
        with suppress(exceptions.RayError):
            ray.cancel(self._reference, force=force)


def _status_of(reference: Any) -> int:
    try:
        return int(ray.get(reference))
    except exceptions.RayTaskError as error:
        raise _cause_of(error) from error
    except exceptions.OutOfMemoryError as error:
        raise TrainingError(
            f"Ray ended its process, for lack of memory on its node: {error}"
        ) from error
    except _LOST as error:
        raise MachineLostError("its node of the Ray cluster went away") from error


def _cause_of(error: exceptions.RayTaskError) -> FomoError:
    cause = error.cause
    if isinstance(cause, FomoError):
        return cause
    return TrainingError(f"Ray could not begin with it: {_last_line(error)}")


def _last_line(error: exceptions.RayTaskError) -> str:
    """What a traceback as text ends with."""
    return str(error.cause).strip().rpartition("\n")[2]


@cache
def _remote(function: Callable[..., Any]) -> Any:
    """Its process stays for the next: it keeps nothing on a device, and forks fast."""
    return ray.remote(max_calls=0)(function)


def _on(node: Mapping[str, Any], function: Callable[..., Any]) -> Any:
    """What takes a moment, on a node."""
    return _remote(function).options(
        num_cpus=0, max_retries=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
    )  # fmt: skip


def _check_nodes(home: Path) -> None:
    """Raises `InputError` where a node cannot do what this machine asks of it."""
    home.mkdir(parents=True, exist_ok=True)
    token = home / f".seen_{uuid4().hex}"
    token.touch()
    try:
        looks = [
            (_name_of(node), _on(node, look).remote(str(home), token.name)) for node in _alive()
        ]
        for name, asked in looks:
            try:
                versions, sees = ray.get(asked, timeout=_SECONDS_TO_START)
            except exceptions.RayTaskError as error:
                raise InputError(
                    f"node {name} of the Ray cluster cannot run fomo-dagster: "
                    f"{_last_line(error)}. Install there what is installed here"
                ) from error
            except exceptions.RayError as error:
                raise InputError(
                    f"node {name} of the Ray cluster does not answer: {error}"
                ) from error
            if different := differences(versions, installed()):
                raise InputError(
                    f"node {name} of the Ray cluster has other versions: {different}: install the "
                    "same on all nodes"
                )
            if not sees:
                raise InputError(not_seen(home, name))
    finally:
        token.unlink(missing_ok=True)


def _alive() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def _name_of(node: Mapping[str, Any]) -> str:
    """Its host, which several may be, with its address."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _room_of(node: Mapping[str, Any]) -> Room:
    resources = node["Resources"]
    memory = int(resources.get("memory", 0) / _GIB)
    return Room(int(resources.get("GPU", 0)), int(resources.get("CPU", 0)), memory)


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray would end this process on SIGTERM, where it is."""
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if in_main and before is not None:
            signal.signal(signal.SIGTERM, before)
