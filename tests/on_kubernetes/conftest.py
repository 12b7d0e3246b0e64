"""A stand-in for a Kubernetes cluster: its API server, as far as pods and nodes go, and a kubelet
that runs the command of a pod as a local process.

The kubelet uses the API alone. So it serves a real API server and scheduler too.
"""

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from kubernetes import client, config

from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.run import kubernetes_api, on_kubernetes
from fomo_dagster.graph.run.clusters import Launch

NAMESPACE = "dagster"
NODE = {
    "metadata": {"name": "node01"},
    "status": {
        "allocatable": {"cpu": "2", "memory": "8Gi", "pods": "50"},
        "capacity": {"cpu": "2", "memory": "8Gi", "pods": "50"},
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}
POD = re.compile(rf"/api/v1/namespaces/{NAMESPACE}/pods(?:/([\w.-]+))?(?:/(status|log|binding))?")


class ApiServer:
    """Pods and nodes over HTTP, as the real one has them. answers: whether it does; else it says
    that it has trouble. refused: (method, path's end) → what it says instead, with a status."""

    def __init__(self) -> None:
        self.pods: dict[str, dict] = {}
        self.nodes: list[dict] = [NODE]
        self.answers = True
        self.refused: dict[tuple[str, str], tuple[int, str]] = {}
        self.created: list[dict] = []
        self.lock = threading.RLock()

    def handle(self, method: str, path: str, query: str, body: dict) -> tuple[int, object]:
        if not self.answers:
            return 503, _status("the server is currently unable to handle the request")
        for (refused, end), (status, message) in self.refused.items():
            if method == refused and path.endswith(end):
                return status, _status(message)
        if path == "/api/v1/nodes":
            return 200, {"kind": "NodeList", "apiVersion": "v1", "items": self.nodes}
        found = POD.fullmatch(path)
        assert found, path
        name, part = found.groups()
        if method == "POST" and name is None:
            return self._create(body)
        if name is None:
            return 200, {"kind": "PodList", "apiVersion": "v1", "items": [*self.pods.values()]}
        if name not in self.pods:
            return 404, _status(f'pods "{name}" not found')
        pod = self.pods[name]
        if part == "log":
            return 200, "what the pod wrote\n"
        if part == "binding":
            pod["spec"]["nodeName"] = body["target"]["name"]
        elif method == "PATCH":
            pod["status"] |= body["status"]
        elif method == "DELETE":
            grace = int(re.search(r"gracePeriodSeconds=(\d+)", query)[1]) if query else 30
            if not grace:
                del self.pods[name]
            else:
                pod["metadata"] |= {
                    "deletionTimestamp": "2026-01-01T00:00:00Z",
                    "deletionGracePeriodSeconds": grace,
                }
        return 200, pod

    def _create(self, pod: dict) -> tuple[int, object]:
        name = pod["metadata"]["name"]
        if name in self.pods:
            return 409, _status(f'pods "{name}" already exists')
        pod["metadata"]["uid"] = f"uid-{len(self.created)}"
        self.pods[name] = pod | {"status": {"phase": "Pending"}}
        self.created.append(pod)
        return 201, pod

    @contextmanager
    def served(self) -> Iterator[str]:
        """Its address."""
        api = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}")
                path, _, query = self.path.partition("?")
                with api.lock:
                    status, answer = api.handle(self.command, path, query, body)
                    text = answer if isinstance(answer, str) else json.dumps(answer)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            yield f"http://127.0.0.1:{server.server_address[1]}"
            server.shutdown()


def _status(message: str) -> dict:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message}


class Kubelet:
    """Runs the pods of a node, each as a process. schedules: whether it is the scheduler too.
    before: what precedes each command."""

    def __init__(self, core: client.CoreV1Api, *, schedules: bool, before: list[str]) -> None:
        self._core, self._schedules, self._before = core, schedules, before
        self.processes: dict[str, subprocess.Popen] = {}
        self._ends: dict[str, float] = {}

    @contextmanager
    def running(self) -> Iterator["Kubelet"]:
        stop = threading.Event()

        def go_on() -> None:
            while not stop.wait(0.05):
                self.look()

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()
            for process in self.processes.values():
                process.kill()
                process.wait()

    def look(self) -> None:
        """Once at all pods."""
        try:
            answer = self._core.list_namespaced_pod(NAMESPACE, _preload_content=False)
            for pod in json.loads(answer.data)["items"]:
                self._look_at(pod)
        except client.ApiException:
            return

    def _look_at(self, pod: dict) -> None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        process = self.processes.get(uid)
        if "nodeName" not in pod["spec"]:
            if not self._schedules:
                return
            pod["spec"]["nodeName"] = NODE["metadata"]["name"]
        if pod["metadata"].get("deletionTimestamp"):
            if process is None or process.poll() is not None:
                self._core.delete_namespaced_pod(name, NAMESPACE, grace_period_seconds=0)
            elif uid not in self._ends:
                process.terminate()
                self._ends[uid] = time.monotonic() + pod["metadata"]["deletionGracePeriodSeconds"]
            elif time.monotonic() > self._ends[uid]:
                process.kill()
        elif process is None and pod["status"].get("phase") == "Pending":
            self.processes[uid] = self._started(pod["spec"]["containers"][0])
            self._tell(name, "Running", {"running": {}})
        elif process is not None and process.poll() is not None and uid not in self._ends:
            self._ends[uid] = 0.0
            code = process.returncode if process.returncode >= 0 else 128 - process.returncode
            reason = "OOMKilled" if code == 128 + signal.SIGKILL else "Error"
            ended = {"terminated": {"exitCode": code, "reason": reason if code else "Completed"}}
            self._tell(name, "Failed" if code else "Succeeded", ended)

    def _started(self, container: dict) -> subprocess.Popen:
        given = {one["name"]: one.get("value", "") for one in container.get("env", [])}
        return subprocess.Popen(
            [*self._before, *container["command"], *container["args"]],
            env={"PATH": os.environ["PATH"], "HOME": str(Path.home()), **given},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def _tell(self, name: str, phase: str, state: dict) -> None:
        container = {
            "name": "fomo", "state": state, "ready": False, "restartCount": 0, "image": "local",
            "imageID": "",
        }  # fmt: skip
        self._core.patch_namespaced_pod_status(
            name, NAMESPACE, {"status": {"phase": phase, "containerStatuses": [container]}}
        )


@pytest.fixture(scope="module")
def address():
    api = ApiServer()
    with api.served() as url:
        yield api, url


@pytest.fixture
def server(address, tmp_path, monkeypatch):
    """The API server that KUBECONFIG names, without any pods, and a manifest in FOMO_POD."""
    api, url = address
    api.__init__()
    monkeypatch.setattr(on_kubernetes, "_SECONDS_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr(kubernetes_api, "_SECONDS_BETWEEN_TRIES", 0.02)
    named = {"cluster": "c", "user": "u", "namespace": "dagster"}
    kubeconfig = {
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "here", "context": named}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    container = {
        "name": "any",
        "image": "fomo",
        "volumeMounts": [{"name": "home", "mountPath": str(tmp_path)}],
    }
    volumes = [{"name": "home", "hostPath": {"path": str(tmp_path)}}]
    manifest = {"kind": "Pod", "spec": {"containers": [container], "volumes": volumes}}
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump(manifest))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "none")
    monkeypatch.setenv("FOMO_POD", str(tmp_path / "pod.yaml"))
    monkeypatch.setenv("FOMO_PROJECT", str(tmp_path))
    monkeypatch.setenv("FOMO_EXECUTOR", "kubernetes")
    load_kubeconfig(monkeypatch, tmp_path / "kubeconfig")
    return api


def load_kubeconfig(monkeypatch, path):
    real, contexts = config.load_kube_config, config.list_kube_config_contexts
    monkeypatch.setattr(config, "load_kube_config", lambda **k: real(str(path), **k))
    monkeypatch.setattr(config, "list_kube_config_contexts", lambda: contexts(str(path)))


@pytest.fixture
def kubelet(server, address):
    configuration = client.Configuration(host=address[1])
    core = client.CoreV1Api(client.ApiClient(configuration))
    with Kubelet(core, schedules=True, before=[]).running() as running:
        yield running


@pytest.fixture
def launch(tmp_path):
    here = tmp_path / "home" / "launches" / "digest_1"
    here.mkdir(parents=True)
    said = []

    def of(script="true", **changes):
        given = {
            "asset": "it",
            "here": here,
            "needs": Needs(device="auto", devices=1),
            "environment": {},
        } | changes
        return Launch(command=["sh", "-c", script], waiting=said.append, **given)

    of.here, of.said = here, said
    return of
