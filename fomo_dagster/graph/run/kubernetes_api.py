"""What is asked of a Kubernetes API server: pods of one namespace, and nodes."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config
from kubernetes.utils import parse_quantity
from urllib3.exceptions import HTTPError

from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.graph.run.pods import SETTING, Manifest, Template
from fomo_dagster.stopping import check

NOT_FOUND, FORBIDDEN = 404, 403
_CONFLICT, _REFUSED = 409, (400, 422)
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_SECONDS_TO_ANSWER = (5.0, 30.0)  # to a connection, to a question
_SECONDS_BETWEEN_TRIES = 2.0
_SECONDS_OF_TROUBLE = 300.0  # that a server may not answer, where work cannot begin without it
_SECONDS_BETWEEN_COUNTS = 30.0  # nodes come and go
_SECONDS_TO_END = 60.0


class Api:
    """The API server, as this process may use it. in_pod: whether this process is in a pod."""

    def __init__(self, api: client.ApiClient, namespace: str, *, in_pod: bool) -> None:
        self._core, self.namespace, self._in_pod = client.CoreV1Api(api), namespace, in_pod
        self._host = api.configuration.host

    @classmethod
    def connected(cls) -> Api:
        """By the account of this pod, or else as `kubectl` does here. Raises `InputError` where no
        server answers."""
        configuration = client.Configuration()
        configuration.retries = 0
        try:
            config.load_incluster_config(client_configuration=configuration)
            namespace, in_pod = _NAMESPACE.read_text().strip(), True
        except config.ConfigException:
            try:
                config.load_kube_config(client_configuration=configuration)
                _, context = config.list_kube_config_contexts()
            except (config.ConfigException, OSError, yaml.YAMLError) as error:
                raise InputError(
                    "FOMO_EXECUTOR is 'kubernetes', and this is no pod, nor does KUBECONFIG name "
                    f"a cluster: {sentence(error)}"
                ) from error
            namespace, in_pod = context["context"].get("namespace", "default"), False
        api = cls(client.ApiClient(configuration), namespace, in_pod=in_pod)
        try:
            api._read(api._core.list_namespaced_pod, namespace, limit=1)
        except client.ApiException as error:
            raise InputError(
                f"{api._host} refuses to list the pods of the namespace {namespace!r}: "
                f"{sentence(error)}. FOMO_EXECUTOR=kubernetes creates, reads and deletes pods there"
            ) from error
        except HTTPError as error:
            raise InputError(
                f"FOMO_EXECUTOR is 'kubernetes', and its API server {api._host} does not answer: "
                f"{sentence(error)}"
            ) from error
        return api

    def own_pod(self) -> Manifest | None:
        """The pod that this process is in."""
        return self.pod(socket.gethostname()) if self._in_pod else None

    def pod(self, name: str) -> Manifest:
        """Raises `ApiException`, or `HTTPError` where the server does not answer."""
        found: Manifest = self._read(self._core.read_namespaced_pod, name, self.namespace)
        return found

    def nodes(self) -> list[Manifest] | None:
        """None where this account may not know, or no server answers now."""
        try:
            found: list[Manifest] = self._read(self._core.list_node)["items"]
        except (client.ApiException, HTTPError):
            return None
        return found

    def create(
        self, pod: Manifest, waiting: Callable[[str], None], beat: Callable[[], None]
    ) -> None:
        """Create a pod, after the end of one of the same name. beat: called again and again.

        Raises `InputError` for a pod that is refused, `StoreError` where no server answers.
        """
        name, until = pod["metadata"]["name"], time.monotonic() + _SECONDS_OF_TROUBLE
        while True:
            check()
            beat()
            try:
                self._read(self._core.create_namespaced_pod, self.namespace, pod)
                return
            except client.ApiException as error:
                said = sentence(error)
                if error.status == _CONFLICT:
                    waiting(f"the pod {name} of an earlier run to end")
                    self.delete(name)
                elif error.status == FORBIDDEN and "quota" in said:
                    waiting(f"room in the namespace {self.namespace}: {said}")
                elif error.status in (FORBIDDEN, *_REFUSED):
                    raise InputError(
                        f"the API server refuses a pod of the template ({SETTING}): {said}"
                    ) from error
                elif time.monotonic() > until:
                    raise StoreError(f"{self._host} creates no pod: {said}") from error
            except HTTPError as error:
                if time.monotonic() > until:
                    raise StoreError(
                        f"{self._host} does not answer ({sentence(error)}): run again to go on"
                    ) from error
                waiting(f"the API server, which does not answer ({sentence(error)})")
            time.sleep(_SECONDS_BETWEEN_TRIES)

    def delete(self, name: str) -> None:
        """Ask for the end of a pod; what is gone, or cannot be asked now, is left."""
        try:
            self._read(self._core.delete_namespaced_pod, name, self.namespace)
        except (client.ApiException, HTTPError):
            return

    def wait_until_gone(self, name: str) -> None:
        """For as long as ending can take."""
        until = time.monotonic() + _SECONDS_TO_END
        while time.monotonic() < until:
            try:
                self.pod(name)
            except (client.ApiException, HTTPError):
                return
            time.sleep(_SECONDS_BETWEEN_TRIES)

    def log(self, name: str) -> str:
        """The end of what a pod wrote; empty where nobody knows."""
        try:
            answer = self._core.read_namespaced_pod_log(
                name, self.namespace, tail_lines=5, _preload_content=False,
                _request_timeout=_SECONDS_TO_ANSWER,
            )  # fmt: skip
        except (client.ApiException, HTTPError):
            return ""
        text: str = answer.data.decode(errors="replace")
        return text.strip().rpartition("\n")[2]

    def _read(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """An answer as the server gave it, with what this version of the client does not know."""
        options |= {"_preload_content": False, "_request_timeout": _SECONDS_TO_ANSWER}
        return json.loads(call(*arguments, **options).data)


class Nodes:
    """What can be had of each node that takes pods of a template, looked at now and then."""

    def __init__(self, api: Api, template: Template) -> None:
        self._api, self._template = api, template
        self._lock, self._next = threading.Lock(), 0.0
        self._found: list[dict[str, float]] | None = None

    def now(self) -> list[dict[str, float]] | None:
        """Resource → how much, for each; None where this account may not know."""
        with self._lock:
            if time.monotonic() >= self._next:
                self._next = time.monotonic() + _SECONDS_BETWEEN_COUNTS
                nodes = self._api.nodes()
                self._found = None if nodes is None else [*map(_room, self._that_take(nodes))]
            return self._found

    def _that_take(self, nodes: list[Manifest]) -> list[Manifest]:
        return [node for node in nodes if self._template.selects(node)]


def _room(node: Manifest) -> dict[str, float]:
    allocatable = node["status"].get("allocatable", {})
    return {name: float(parse_quantity(text)) for name, text in allocatable.items()}


def conditions(pod: Mapping[str, Any], kind: str, status: str) -> list[Mapping[str, Any]]:
    """Those of a pod that are of a kind, and have a status."""
    found = pod.get("status", {}).get("conditions", [])
    return [one for one in found if one["type"] == kind and one["status"] == status]


def sentence(error: Exception) -> str:
    """What an API server, or the way to it, says."""
    try:
        return str(json.loads(error.body)["message"])  # type: ignore[attr-defined]
    except (AttributeError, TypeError, ValueError, KeyError):
        return " ".join(str(getattr(error, "reason", None) or error).split())
