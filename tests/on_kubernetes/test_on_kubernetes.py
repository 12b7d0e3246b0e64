"""Pods do the work, and whatever happens to one is told as what it was."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from fomo_dagster.errors import InputError
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.run import heartbeats, installed, on_kubernetes
from fomo_dagster.graph.run.clusters import MachineLostError
from fomo_dagster.graph.run.executors import open_cluster
from fomo_dagster.graph.run.heartbeats import Heart, wait_for_silence
from fomo_dagster.graph.run.on_kubernetes import KubernetesCluster
from fomo_dagster.graph.run.pending import Place
from fomo_dagster.graph.run.pods import Room, Template

ONE = Needs(device="auto", devices=1)


def mount(path):
    return {"name": "home", "mountPath": path}


def ended(started):
    until = time.monotonic() + 20
    while (status := started.poll()) is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    return status


def until(condition):
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def refused(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("script", "status"),
    [("echo $WHO $FOMO_HEARTBEAT", 0), ("exit 3", 3), ("kill -9 $$", -9), ("kill $$", -15)],
)
def test_a_pod_ends_as_its_process_does_and_leaves_nothing(server, kubelet, launch, script, status):
    cluster = open_cluster()
    assert isinstance(cluster, KubernetesCluster)
    assert ended(cluster.start(launch(script, environment={"WHO": "me"}))) == status
    said = (launch.here / "output.txt").read_text()
    assert said.startswith("me ") if status == 0 else said == ""
    until(lambda: not server.pods)
    (pod,) = server.created
    assert pod["metadata"]["annotations"] == {"fomo/asset": "it"}
    assert pod["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("has_finished", [False, True])
@pytest.mark.parametrize("happens", ["drained", "evicted", "deleted", "node lost"])
def test_a_lost_pod_is_told_from_one_that_failed(server, launch, happens, has_finished):
    started = open_cluster().start(launch())
    (pod,) = server.pods.values()
    if has_finished:
        (launch.here / "result.json").write_text('{"cost": {}}')
    status = {
        "drained": {"phase": "Running"},
        "evicted": {"phase": "Failed", "reason": "Evicted", "message": "low on memory"},
        "deleted": {},
        "node lost": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {
            "exitCode": 137, "reason": "ContainerStatusUnknown"}}}]},
    }[happens]  # fmt: skip
    pod["status"] |= status
    if happens == "drained":
        pod["metadata"] |= {"deletionTimestamp": "now", "deletionGracePeriodSeconds": 30}
        assert started.poll() is None  # it is still given the time to keep what it has
        time.sleep(0.03)
        stopped = {"terminated": {"exitCode": 0, "reason": "Completed"}}
        pod["status"] |= {"phase": "Succeeded", "containerStatuses": [{"state": stopped}]}
    if happens == "deleted":
        server.pods.clear()
    if has_finished:
        assert ended(started) == 0
        return
    with pytest.raises(MachineLostError, match=r"its pod fomo-\w{20} was lost") as caught:
        ended(started)
    if happens == "evicted":
        assert str(caught.value).endswith("(Evicted: low on memory)")
    assert started.poll() == -signal.SIGKILL


def test_a_pod_that_waits_says_why_and_stops_at_once(server, launch):
    started = open_cluster().start(launch())
    (pod,) = server.pods.values()
    reason = "0/1 nodes are available: 1 Insufficient cpu."
    waits = {"type": "PodScheduled", "status": "False", "message": reason}
    pod["status"]["conditions"] = [waits]
    assert started.poll() is None
    (said,) = launch.said
    assert said.startswith("a node for its pod fomo-")
    assert said.endswith(reason)
    (launch.here / "stop").write_text("SIGTERM")
    assert ended(started) == -signal.SIGTERM
    assert pod["metadata"]["deletionTimestamp"]


def test_work_goes_on_while_the_api_server_does_not_answer(server, kubelet, launch, tmp_path):
    started = open_cluster().start(launch(f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"))
    until(lambda: kubelet.processes)
    assert started.poll() is None
    server.answers = False
    until(lambda: started.poll() is None and launch.said)
    assert launch.said == [
        "the API server, which does not answer (the server is currently unable to handle the "
        "request)"
    ]
    (tmp_path / "go").touch()
    server.answers = True
    assert ended(started) == 0


def test_what_an_earlier_launcher_left_is_ended_before_its_work_begins_again(
    server, kubelet, launch
):
    cluster = open_cluster()
    cluster.start(launch("trap exit TERM; while true; do sleep 0.02; done"))
    until(lambda: kubelet.processes)
    assert ended(cluster.start(launch("true"))) == 0
    name = server.created[0]["metadata"]["name"]
    assert set(launch.said) == {f"the pod {name} of an earlier run to end"}
    assert len(server.created) == 2
    assert next(iter(kubelet.processes.values())).poll() is not None


def test_a_pod_that_has_a_node_and_does_not_start_names_the_command_that_says_why(
    server, launch, monkeypatch
):
    started = open_cluster().start(launch())
    (pod,) = server.pods.values()
    pod["status"]["containerStatuses"] = [{"state": {"waiting": {"reason": "ContainerCreating"}}}]
    assert started.poll() is None
    assert launch.said == []
    monkeypatch.setattr(on_kubernetes, "_SECONDS_TO_START", 0.0)
    until(lambda: started.poll() is None and launch.said)
    name = pod["metadata"]["name"]
    assert launch.said == [f"its pod to start: `kubectl describe pod {name}` says what it lacks"]


@pytest.mark.parametrize("reason", ["InvalidImageName", "CreateContainerConfigError"])
def test_a_pod_that_never_starts_is_refused_with_what_kubernetes_says(server, launch, reason):
    started = open_cluster().start(launch())
    (pod,) = server.pods.values()
    waits = {"waiting": {"reason": reason, "message": "no such thing"}}
    pod["status"]["containerStatuses"] = [{"state": waits}]
    assert f"does not start: {reason}: no such thing" in refused(ended, started)
    assert pod["metadata"]["deletionTimestamp"]


def test_a_pod_that_does_not_see_the_home_is_told_from_one_that_failed(server, launch):
    started = open_cluster().start(launch())
    (pod,) = server.pods.values()
    pod["spec"]["nodeName"] = "node01"
    failed = {"terminated": {"exitCode": 2, "reason": "Error"}}
    pod["status"] |= {"phase": "Failed", "containerStatuses": [{"state": failed}]}
    said = refused(ended, started)
    assert "on node01 does not see it, or may not write there: what the pod wrote" in said


def test_more_than_any_node_has_is_refused_where_nodes_do_not_come_on_demand(server, monkeypatch):
    cluster = open_cluster()
    cluster.check(Needs(device="cpu", devices=2, cpus=2))
    for needs, what in (
        (Needs(device="cpu", devices=3, cpus=3), "3 CPUs"),
        (Needs(device="cuda", devices=1), "1 nvidia.com/gpu, 1 CPU"),
        (Needs(device="cpu", devices=1, memory_gib=9), "1 CPU and 9 GiB"),
    ):
        said = refused(cluster.check, needs)
        assert said.startswith(
            f"it needs {what} on one node, more than any of the cluster's 1 node"
        )
    assert "execution.device is 'cuda:1'" in refused(
        cluster.check, Needs(device="cuda:1", devices=1)
    )
    assert "names 2 machines" in refused(cluster.check, Needs(device="cpu", devices=1, machines=2))
    monkeypatch.setenv("FOMO_PODS", "4")
    cluster = open_cluster()
    cluster.check(Needs(device="cuda", devices=1))
    assert cluster.slots == 4


def test_the_highest_place_gets_the_next_room_and_no_more_is_begun(server):
    cluster, order, waits = open_cluster(parallel=1), [], []

    def take(priority):
        with cluster.lend(ONE, "it", waits.append, Place("it", {"it": priority})):
            order.append(priority)

    with cluster.lend(ONE, "it", waits.append, Place()) as lent:
        assert (lent.devices, lent.cpus, waits) == ((), 1, [])
        threads = [threading.Thread(target=take, args=(number,)) for number in (1.0, 3.0, 2.0)]
        for number, thread in enumerate(threads, 1):
            thread.start()
            until(lambda number=number: len(waits) == number)
        assert order == []
    for thread in threads:
        thread.join()
    assert order == [3.0, 2.0, 1.0]


def test_devices_are_asked_for_where_nodes_have_them_and_hidden_elsewhere(server, launch):
    open_cluster().start(launch())
    server.pods.clear()
    allocatable = {**server.nodes[0]["status"]["allocatable"], "nvidia.com/gpu": "4"}
    (small,) = server.nodes
    server.nodes = [small, {**small, "status": {"allocatable": allocatable}}]
    cluster = open_cluster()
    assert cluster.slots == 4
    cluster.start(launch(needs=Needs(device="auto", devices=2, cpus=3, memory_gib=1.5)))
    without, with_devices = (pod["spec"]["containers"][0] for pod in server.created)
    assert without["resources"] == {"requests": {"cpu": "1"}, "limits": {}}
    assert {"name": "CUDA_VISIBLE_DEVICES", "value": ""} in without["env"]
    assert with_devices["resources"] == {
        "requests": {"cpu": "3", "memory": "1536Mi", "nvidia.com/gpu": "2"},
        "limits": {"nvidia.com/gpu": "2"},
    }
    assert "CUDA_VISIBLE_DEVICES" not in {one["name"] for one in with_devices["env"]}


def test_where_nodes_cannot_be_looked_at_devices_are_taken_to_be_there(server, launch, monkeypatch):
    server.refused["GET", "/nodes"] = (403, "nodes is forbidden")
    cluster = open_cluster()
    assert cluster.slots == 8
    cluster.check(Needs(device="cuda", devices=64))
    with cluster.lend(Needs(spreads=True), "it", lambda _: None, Place()) as lent:
        assert lent.cpus == 4
    cluster.start(launch())
    monkeypatch.setenv("FOMO_POD_DEVICE", "cpu")
    server.pods.clear()
    open_cluster().start(launch())
    asked = [pod["spec"]["containers"][0]["resources"]["limits"] for pod in server.created]
    assert asked == [{"nvidia.com/gpu": "1"}, {}]


def test_pods_are_like_the_run_s_own_but_for_what_is_its_alone(tmp_path):
    credentials = {
        "name": "kube-api-access-x",
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    }
    run = {
        "metadata": {
            "name": "dagster-run-1", "uid": "u",
            "labels": {"dagster/run-id": "1", "job-name": "dagster-run-1", "controller-uid": "c"},
        },
        "spec": {
            "nodeName": "node01", "priority": 7, "serviceAccountName": "dagster",
            "volumes": [{"name": "kube-api-access-x"}, {"name": "home", "emptyDir": {}}],
            "containers": [
                {
                    "name": "dagster", "image": "fomo:1", "args": ["dagster", "api"],
                    "resources": {"limits": {"cpu": "1"}},
                    "env": [{"name": "FOMO_HOME", "value": "/fomo"}],
                    "volumeMounts": [credentials, mount("/fomo")],
                },
                {"name": "sidecar"},
            ],
        },
    }  # fmt: skip
    template = Template.of_pod(run)
    pod = template.pod("name", Room(0, 2), tmp_path, ["do"], {"A": "b"})
    # By the labels of its Job, Kubernetes would take the pod for one of that Job's.
    assert pod["metadata"]["labels"] == {
        "dagster/run-id": "1", "app.kubernetes.io/name": "fomo-dagster"
    }  # fmt: skip
    assert pod["spec"] == {
        "serviceAccountName": "dagster", "restartPolicy": "Never",
        "volumes": [{"name": "home", "emptyDir": {}}],
        "containers": [
            {
                "name": "fomo", "image": "fomo:1", "volumeMounts": [mount("/fomo")],
                "env": [{"name": "FOMO_HOME", "value": "/fomo"}, {"name": "A", "value": "b"}],
                "command": ["sh", "-c", 'exec "$@" > "$0" 2>&1', f"{tmp_path}/output.txt"],
                "args": ["do"], "resources": {"requests": {"cpu": "2"}, "limits": {}},
            }
        ],
    }  # fmt: skip
    said = refused(template.check_sees, Path("/fomo/home"))
    assert said.startswith("FOMO_HOME is /fomo/home, which lies on home, an emptyDir, of the pod")
    assert "lies on no volume" in refused(template.check_sees, tmp_path)


def test_a_cluster_that_cannot_be_used_is_refused_with_the_way_out(
    server, launch, tmp_path, monkeypatch
):
    monkeypatch.setenv("FOMO_PODS", "0")
    assert "FOMO_PODS is '0': expected a number from 1" in refused(open_cluster)
    monkeypatch.delenv("FOMO_PODS")
    (tmp_path / "pod.yaml").write_text("kind: Job")
    assert "expected a file with a manifest, `kind: Pod`" in refused(open_cluster)
    monkeypatch.delenv("FOMO_POD")
    assert "name a manifest in FOMO_POD, or run this in a pod" in refused(open_cluster)
    server.refused["GET", "/pods"] = (403, "pods is forbidden")
    assert "refuses to list the pods of the namespace 'dagster': pods is" in refused(open_cluster)
    config = tmp_path / "kubeconfig"
    config.write_text(config.read_text().replace("http://127.0.0.1:", "http://127.0.0.1:1"))
    assert "does not answer" in refused(open_cluster)
    config.write_text("")
    assert "this is no pod, nor does KUBECONFIG name a cluster" in refused(open_cluster)


def test_a_refused_pod_is_told_at_once_but_a_quota_is_waited_for(server, kubelet, launch):
    cluster = open_cluster()
    server.refused["POST", "/pods"] = (403, "exceeded quota: gpus")
    threading.Timer(0.1, server.refused.clear).start()
    assert ended(cluster.start(launch())) == 0
    assert launch.said[0] == "room in the namespace dagster: exceeded quota: gpus"
    server.refused["POST", "/pods"] = (422, "spec.volumes: Invalid value")
    said = refused(cluster.start, launch())
    assert said.endswith("refuses a pod of the template (FOMO_POD): spec.volumes: Invalid value")


def test_work_ends_when_its_launcher_falls_silent_or_another_takes_over(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeats, "SECONDS_BETWEEN_BEATS", 0.02)
    monkeypatch.setattr(heartbeats, "SECONDS_OF_SILENCE", 0.4)
    heart, ends = Heart(tmp_path, "token"), threading.Event()
    heart.beat()

    def look():
        wait_for_silence(tmp_path, heart.variable)
        ends.set()

    threading.Thread(target=look).start()
    until_beaten = time.monotonic() + 1.0
    while time.monotonic() < until_beaten:
        heart.beat()
        assert not ends.wait(0.02)
    assert ends.wait(5)
    Heart(tmp_path, "other").beat()
    for _ in range(2):  # of another launch; then without any folder
        begun = time.monotonic()
        wait_for_silence(tmp_path, "token 100")
        assert time.monotonic() - begun < 5
        (tmp_path / "heartbeat").unlink(missing_ok=True)


def test_a_pod_with_other_versions_is_refused_with_both(monkeypatch):
    here = dict(installed.installed())
    monkeypatch.setenv(installed.EXPECTED, json.dumps(here))
    installed.check_expected("pod-1")
    monkeypatch.setenv(installed.EXPECTED, json.dumps(here | {"torch": "1.0"}))
    said = refused(installed.check_expected, "pod-1")
    assert said.startswith(f"pod-1 has other versions: torch {here['torch']}, here 1.0: have the")


def test_the_extra_is_named_where_it_is_not_installed(monkeypatch):
    monkeypatch.setenv("FOMO_EXECUTOR", "kubernetes")
    monkeypatch.setitem(sys.modules, "fomo_dagster.graph.run.on_kubernetes", None)
    assert "pip install 'fomo-dagster[kubernetes]'" in refused(open_cluster)
    assert os.environ["FOMO_EXECUTOR"] == "kubernetes"
