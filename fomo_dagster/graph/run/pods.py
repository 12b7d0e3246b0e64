"""The pods that work is done in, as Kubernetes' API has them: made from a template, which is the
pod of the run itself or a manifest that a person wrote."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from fomo_dagster.errors import InputError
from fomo_dagster.graph.run.processes import OUTPUT
from fomo_dagster.units import counted

SETTING = "FOMO_POD"
DEVICE = "nvidia.com/gpu"
Manifest = dict[str, Any]
_CREDENTIALS = "/var/run/secrets/kubernetes.io/serviceaccount"  # each pod is given its own
# Of a pod that runs: what the cluster gave it, and what is for that pod alone.
_ITS_OWN = (
    "nodeName", "hostname", "subdomain", "initContainers", "ephemeralContainers", "priority",
    "preemptionPolicy", "schedulingGates", "resourceClaims", "activeDeadlineSeconds",
)  # fmt: skip
_OF_ITS_CONTAINER = (
    "args", "command", "resources", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle",
    "ports", "stdin", "stdinOnce", "tty",
)  # fmt: skip
_OUTPUT_TO_FILE = 'exec "$@" > "$0" 2>&1'


@dataclass(frozen=True)
class Room:
    """What a pod asks of its node. device: the name of the resource of which it needs `devices`."""

    devices: int
    cpus: int
    memory_gib: float = 0.0
    device: str = DEVICE

    @property
    def requests(self) -> dict[str, str]:
        memory = {"memory": f"{int(self.memory_gib * 1024)}Mi"} if self.memory_gib else {}
        return {"cpu": str(self.cpus), **memory, **self.limits}

    @property
    def limits(self) -> dict[str, str]:
        return {self.device: str(self.devices)} if self.devices else {}

    def fits(self, node: Mapping[str, float]) -> bool:
        """Whether a node on which this much can be had could ever hold it."""
        return (
            self.devices <= node.get(self.device, 0)
            and self.cpus <= node.get("cpu", 0)
            and self.memory_gib * 2**30 <= node.get("memory", 0)
        )

    def __str__(self) -> str:
        devices = f"{self.devices} {self.device}, " if self.devices else ""
        memory = f" and {self.memory_gib:g} GiB" if self.memory_gib else ""
        return f"{devices}{counted(self.cpus, 'CPU')}{memory}"


@dataclass(frozen=True)
class Template:
    """What all pods have in common. source: where it is from, for people. python: what runs Python
    there."""

    source: str
    python: str
    spec: Manifest
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_pod(cls, pod: Mapping[str, Any]) -> Template:
        """That of a pod which runs: the same image, volumes, variables and account."""
        metadata, spec = pod["metadata"], copy.deepcopy(dict(pod["spec"]))
        container = spec["containers"][0]
        mounts = container.get("volumeMounts", [])
        given = {mount["name"] for mount in mounts if mount["mountPath"] == _CREDENTIALS}
        container["volumeMounts"] = [mount for mount in mounts if mount["name"] not in given]
        spec["volumes"] = [one for one in spec.get("volumes", []) if one["name"] not in given]
        for key in _ITS_OWN:
            spec.pop(key, None)
        for key in _OF_ITS_CONTAINER:
            container.pop(key, None)
        spec["containers"] = [container]
        # Never those by which a Job or a ReplicaSet knows its pods: it would adopt these too.
        labels = {
            name: value
            for name, value in metadata.get("labels", {}).items()
            if name.startswith("dagster/")
        }
        return cls(f"the pod {metadata['name']}", sys.executable, spec, labels)

    @classmethod
    def read(cls, path: Path) -> Template:
        """That of a manifest; raises `InputError` where the file holds none."""
        expected = f"{SETTING} is {str(path)!r}: expected a file with a manifest, `kind: Pod`"
        try:
            manifest = yaml.safe_load(path.read_text())
        except (OSError, UnicodeError, yaml.YAMLError) as error:
            raise InputError(f"{expected} ({error})") from error
        match manifest:
            case {"kind": "Pod", "spec": {"containers": [{"image": str()}, *_]}}:
                pass
            case _:
                raise InputError(
                    f"{expected}, whose spec has a container with an image; the first one works"
                )
        metadata = manifest.get("metadata") or {}
        return cls(
            str(path), "python", manifest["spec"],
            metadata.get("labels") or {}, metadata.get("annotations") or {},
        )  # fmt: skip

    def check_sees(self, home: Path) -> None:
        """Raises `InputError` where the pods would not see the home."""
        mounts = self.spec["containers"][0].get("volumeMounts", [])
        above = [one for one in mounts if _holds(one["mountPath"], home)]
        found = max(above, key=lambda one: len(PurePosixPath(one["mountPath"]).parts), default=None)
        volumes = {one["name"]: one for one in self.spec.get("volumes", [])}
        if found is None or "emptyDir" in volumes.get(found["name"], {}):
            where = "on no volume" if found is None else f"on {found['name']}, an emptyDir,"
            raise InputError(
                f"FOMO_HOME is {home}, which lies {where} of {self.source}, and its pods would not "
                "see it: mount a volume there that many pods can write to (ReadWriteMany)"
            )

    def selects(self, node: Mapping[str, Any]) -> bool:
        """Whether its node selector does."""
        labels = node["metadata"].get("labels", {})
        return all(labels.get(k) == v for k, v in self.spec.get("nodeSelector", {}).items())

    def pod(
        self,
        name: str,
        room: Room,
        here: Path,
        command: Sequence[str],
        environment: Mapping[str, str],
    ) -> Manifest:
        """A pod that does the work in the folder `here`, where its output goes."""
        spec = copy.deepcopy(self.spec)
        container = spec["containers"][0]
        resources = container.get("resources") or {}
        named = [one for one in container.get("env", []) if one["name"] not in environment]
        container |= {
            "name": "fomo",
            "command": ["sh", "-c", _OUTPUT_TO_FILE, str(here / OUTPUT)],
            "args": [self.python if part == sys.executable else part for part in command],
            "env": [*named, *({"name": n, "value": value} for n, value in environment.items())],
            "resources": {
                "requests": {**(resources.get("requests") or {}), **room.requests},
                "limits": {**(resources.get("limits") or {}), **room.limits},
            },
        }
        labels = {**self.labels, "app.kubernetes.io/name": "fomo-dagster"}
        return {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": labels, "annotations": dict(self.annotations)},
            "spec": {**spec, "restartPolicy": "Never"},
        }  # fmt: skip

    def has_variable(self, name: str) -> bool:
        return any(one["name"] == name for one in self.spec["containers"][0].get("env", []))


def _holds(mount: str, path: Path) -> bool:
    return PurePosixPath(path).is_relative_to(mount)
