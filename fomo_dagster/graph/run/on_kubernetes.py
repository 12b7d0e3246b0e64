"""Work in pods of a Kubernetes cluster: one for each asset that takes more than a moment.

A pod, rather than a Job: whatever Kubernetes would start again by itself would do the same work a
second time. Work whose pod was lost is begun again here, from its resume point.

All pods see one FOMO_HOME, through which they are told what to do and tell how they go.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from kubernetes import client
from urllib3.exceptions import HTTPError

from fomo_dagster.errors import FomoError, InputError
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.run import pods
from fomo_dagster.graph.run.clusters import Launch, MachineLostError
from fomo_dagster.graph.run.devices import MOST_SLOTS, VISIBLE, Lender, Lent, Turns
from fomo_dagster.graph.run.heartbeats import HEARTBEAT, Heart
from fomo_dagster.graph.run.installed import EXPECTED, installed
from fomo_dagster.graph.run.kubernetes_api import NOT_FOUND, Api, Nodes, conditions, sentence
from fomo_dagster.graph.run.pending import Place
from fomo_dagster.graph.run.pods import Manifest, Room, Template
from fomo_dagster.graph.run.processes import ALONE, OUTPUT, RESULT, STOP, TASK, WORKER, Started
from fomo_dagster.home import project_folder
from fomo_dagster.units import counted

MOST = "FOMO_PODS"
DEVICE = "FOMO_POD_DEVICE"
_FEW = 8  # pods at once, where nobody says and the nodes cannot be looked at
_SOME_CPUS = 4  # where half a node is wanted, and the nodes cannot be looked at
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_TO_START = 60.0  # until it is said that a pod has a node and does not start
_SECONDS_TO_PULL = 180.0  # an image that the registry does not give
_SECONDS_TO_END = 60.0  # of a pod, beyond its grace
_NEVER_STARTS = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError")


class KubernetesCluster:
    """The cluster whose API server answers this process.

    at_most: devices that are used at once; None: as many as its nodes have. device: the resource
    that stands for a device; None: `auto` is the CPU.
    """

    has_workers = True

    def __init__(
        self,
        api: Api,
        template: Template,
        *,
        at_most: int | None,
        device: str | None,
        owner: Manifest | None = None,
    ) -> None:
        self._api, self._template, self._owner = api, template, owner
        self._nodes = Nodes(api, template)
        self._at_most, self._device = at_most, device
        self._turns, self._lock, self._taken = Turns(), threading.Lock(), 0

    @classmethod
    def connected(cls, parallel: int | None) -> KubernetesCluster:
        """Raises `InputError` where no API server answers, or nothing says what the pods are."""
        at_most = parallel if parallel is not None else _most_pods()
        if at_most is not None and not 1 <= at_most <= MOST_SLOTS:
            raise InputError(f"--parallel is {at_most}: expected a number from 1 to {MOST_SLOTS}")
        device = os.environ.get(DEVICE, "").strip() or pods.DEVICE
        api = Api.connected()
        named, own = os.environ.get(pods.SETTING, "").strip(), api.own_pod()
        if named:
            template = Template.read(Path(named).expanduser())
        elif own is not None:
            template = Template.of_pod(own)
        else:
            raise InputError(
                "FOMO_EXECUTOR is 'kubernetes', and nothing says what its pods are: name a "
                f"manifest in {pods.SETTING}, or run this in a pod, whose image and volumes they "
                "then have"
            )
        device_or_none = None if device == "cpu" else device
        return cls(api, template, at_most=at_most, device=device_or_none, owner=own)

    @property
    def executor(self) -> str:
        return "kubernetes"

    @property
    def slots(self) -> int:
        if self._at_most is not None:
            return self._at_most
        nodes = self._nodes.now()
        if nodes is None:
            return _FEW
        devices = sum(node.get(self._device or "", 0) for node in nodes)
        return max(1, int(devices or sum(node.get("cpu", 0) for node in nodes)))

    def check(self, needs: Needs) -> None:
        if needs.device not in ("", "auto", "cpu", "cuda"):
            raise InputError(
                f"execution.device is {needs.device!r}, a device of one machine, and Kubernetes "
                "chooses where to compute: use auto, cuda or cpu"
            )
        if needs.machines > 1:
            raise InputError(
                f"execution.machines names {needs.machines} machines, and a pod is on one: remove "
                "it, and set execution.processes to the devices of a node"
            )
        nodes, room = self._nodes.now(), self._room(needs)
        if not nodes or any(map(room.fits, nodes)):
            return
        if os.environ.get(MOST):  # whoever names it has a cluster that grows on demand
            return
        raise InputError(
            f"it needs {room} on one node, more than any of the cluster's "
            f"{counted(len(nodes), 'node')} has: lower execution.processes, workers, cpus or "
            f"memory_gib, or add a node. Where nodes come on demand, set {MOST} to the most pods "
            "at once"
        )

    def lender(self, leases: Path) -> Lender:
        return self

    @contextmanager
    def lend(
        self, needs: Needs, note: str, waiting: Callable[[Sequence[str]], None], place: Place
    ) -> Iterator[Lent]:
        """As `Lender.lend`. Which devices these are, Kubernetes decides; here no more is begun than
        there is room for, so that the greatest priority goes first."""
        self.check(needs)
        room = self._room(needs)
        if not needs.devices:
            yield Lent(cpus=room.cpus)
            return
        waited = self._turns.wait(place, lambda: self._take(needs.devices), waiting)
        try:
            yield Lent(cpus=room.cpus, waited=waited)
        finally:
            with self._lock:
                self._taken -= needs.devices

    def preload(self) -> None:
        """Where work is done, that is not decided yet."""

    def check_home(self, home: Path) -> None:
        """Raises `InputError` where the pods would not see the home."""
        self._template.check_sees(home)

    def start(self, launch: Launch) -> Started:
        home = launch.here.parents[1]
        self.check_home(home)
        # Who launches the same again finds what an earlier one left, and ends it first.
        name = f"fomo-{hashlib.sha256(str(launch.here).encode()).hexdigest()[:20]}"
        heart = Heart(launch.here, uuid4().hex)
        room = self._room(launch.needs)
        command = launch.command or [sys.executable, "-m", WORKER, str(launch.here / TASK)]
        environment = {
            **({} if launch.command else ALONE),
            **self._settings(),
            **launch.environment,
            **({} if room.devices else {VISIBLE: ""}),
            HEARTBEAT: heart.variable,
            EXPECTED: json.dumps(dict(installed())),
        }
        pod = self._template.pod(name, room, launch.here, command, environment)
        pod["metadata"]["annotations"]["fomo/asset"] = launch.asset
        if self._owner is not None:
            pod["metadata"]["ownerReferences"] = [
                {"apiVersion": "v1", "kind": "Pod"}
                | {key: self._owner["metadata"][key] for key in ("name", "uid")}
            ]
        heart.beat()
        self._api.create(pod, launch.waiting, heart.beat)
        return _Pod(self._api, name, launch, heart)

    def _settings(self) -> dict[str, str]:
        """What the pods must know that this process knows, but for what their template gives them,
        maybe out of a secret."""
        known = {
            name: value
            for name, value in os.environ.items()
            if name.startswith("FOMO_") or name == "OMP_NUM_THREADS"
        }
        known["FOMO_PROJECT"] = str(project_folder())
        return {n: value for n, value in known.items() if not self._template.has_variable(n)}

    def _room(self, needs: Needs) -> Room:
        nodes = self._nodes.now()
        devices = needs.devices if needs.device in ("auto", "cuda") else 0
        if needs.device == "auto":
            is_there = nodes is None or any(node.get(self._device or "", 0) for node in nodes)
            devices = devices if self._device is not None and is_there else 0
        cpus = needs.cpus
        if needs.spreads:  # half a node, so that others fit beside it
            cpus = int(max(node.get("cpu", 0) for node in nodes) + 1) // 2 if nodes else _SOME_CPUS
        return Room(devices, max(1, cpus), needs.memory_gib or 0.0, self._device or pods.DEVICE)

    def _take(self, devices: int) -> bool:
        with self._lock:
            if self._taken and self._taken + devices > self.slots:
                return False
            self._taken += devices
            return True


class _Pod:
    """A pod as a `Started`."""

    def __init__(self, api: Api, name: str, launch: Launch, heart: Heart) -> None:
        self._api, self._name, self._launch, self._heart = api, name, launch, heart
        self._status: int | None = None
        self._next, self._begun = 0.0, time.monotonic()
        self._leaves: str | None = None  # why, where not this process ends it
        self._gone_at, self._said = 0.0, ""

    def poll(self, within: float = 0.0) -> int | None:
        """Raises `MachineLostError` where the pod was lost, and `FomoError` where it never starts.

        After that the status is that of one that was killed.
        """
        if self._status is None and within:
            time.sleep(within)
        if self._status is None and time.monotonic() >= self._next:
            self._next = time.monotonic() + _SECONDS_BETWEEN_LOOKS
            self._heart.beat()
            try:
                self._status = self._look()
            except (MachineLostError, FomoError):
                self._status = -signal.SIGKILL
                self._api.delete(self._name)
                raise
            if self._status is not None:
                self._api.delete(self._name)
        return self._status

    def kill(self) -> None:
        self._api.delete(self._name)

    def wait(self) -> int:
        self._api.wait_until_gone(self._name)
        self._status = -signal.SIGKILL
        return self._status

    def _look(self) -> int | None:
        try:
            pod = self._api.pod(self._name)
        except client.ApiException as error:
            if error.status == NOT_FOUND:
                return self._lost(self._leaves or "it was deleted")
            return self._unanswered(error)
        except HTTPError as error:
            return self._unanswered(error)
        metadata, status = pod["metadata"], pod.get("status", {})
        reason = status.get("reason") or next(
            (one.get("reason") for one in conditions(pod, "DisruptionTarget", "True")), None
        )
        if metadata.get("deletionTimestamp") or reason:
            said = f"{reason or 'it was deleted'}: {status.get('message', '')}".rstrip(": ")
            if self._leaves is None:
                grace = metadata.get("deletionGracePeriodSeconds") or 0
                self._gone_at = time.monotonic() + grace + _SECONDS_TO_END
            self._leaves = said
        containers = status.get("containerStatuses") or [{}]
        state: Mapping[str, Any] = containers[0].get("state", {})
        ended = state.get("terminated")
        if status.get("phase") in ("Succeeded", "Failed"):
            if self._leaves is not None or ended is None:
                return self._lost(self._leaves or "its node went away")
            return self._ended(ended, pod["spec"].get("nodeName", ""))
        if self._leaves is not None and time.monotonic() > self._gone_at:
            return self._lost(f"{self._leaves}, and its node does not answer")
        if not state.get("running") and (self._launch.here / STOP).exists():
            return -signal.SIGTERM  # nothing runs yet that would heed it
        self._tell(pod, state.get("waiting") or {})
        return None

    def _lost(self, why: str) -> int:
        if "cost" in self._result():
            return 0
        raise MachineLostError(f"its pod {self._name} was lost ({why})")

    def _ended(self, ended: Mapping[str, Any], node: str) -> int:
        if ended.get("reason") == "ContainerStatusUnknown":
            return self._lost("its node went away")
        code = int(ended["exitCode"])
        if code and not (self._launch.here / OUTPUT).exists():
            raise InputError(
                f"FOMO_HOME is {self._launch.here.parents[1]}, and the pod {self._name} on {node} "
                f"does not see it, or may not write there: {self._api.log(self._name)}"
            )
        if ended.get("reason") == "OOMKilled":
            return -signal.SIGKILL
        return 128 - code if code > 128 else code

    def _unanswered(self, error: Exception) -> int | None:
        """The pod may work on meanwhile, and may have ended."""
        if "cost" in self._result():
            return 0
        self._say(f"the API server, which does not answer ({sentence(error)})")
        return None

    def _tell(self, pod: Manifest, waits: Mapping[str, Any]) -> None:
        """Say what a pod waits for; raises `InputError` where that never comes."""
        reason, message = waits.get("reason", ""), waits.get("message", "")
        refused = reason in _NEVER_STARTS or reason.startswith(("ErrImage", "ImagePull", "Create"))
        lasts = time.monotonic() - self._begun
        if reason in _NEVER_STARTS or (refused and lasts > _SECONDS_TO_PULL):
            raise InputError(
                f"its pod {self._name} does not start: {reason}: {message}. Its image and volumes "
                "are those of the template"
            )
        for condition in conditions(pod, "PodScheduled", "False"):
            self._begun = time.monotonic()
            self._say(f"a node for its pod {self._name}: {condition.get('message', 'none yet')}")
        if refused:
            self._say(f"the image of its pod {self._name}: {reason}: {message}")
        elif reason and lasts > _SECONDS_TO_START:
            self._say(f"its pod to start: `kubectl describe pod {self._name}` says what it lacks")

    def _say(self, what: str) -> None:
        if what != self._said:
            self._said = what
            self._launch.waiting(what)

    def _result(self) -> Mapping[str, Any]:
        try:
            found: Mapping[str, Any] = json.loads((self._launch.here / RESULT).read_bytes())
        except (OSError, ValueError):
            return {}
        return found


def _most_pods() -> int | None:
    """What FOMO_PODS says."""
    named = os.environ.get(MOST, "").strip()
    if named and not (named.isdecimal() and 1 <= int(named) <= MOST_SLOTS):
        raise InputError(f"{MOST} is {named!r}: expected a number from 1 to {MOST_SLOTS}")
    return int(named) if named else None
