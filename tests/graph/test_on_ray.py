"""What a Ray cluster cannot do is said before anything is asked of it."""

import re
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from fomo_dagster.errors import InputError
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.run import on_ray
from fomo_dagster.graph.run.executors import open_cluster
from fomo_dagster.graph.run.installed import installed
from fomo_dagster.graph.run.on_ray import RayCluster
from fomo_dagster.graph.run.pending import Place

ONE = Needs(device="auto", devices=1)


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else Ray writes a token into the person's home
        ray.init(
            "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
        )
        yield RayCluster.connected(None)
        ray.shutdown()


def refused(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.mark.slow
def test_work_that_no_node_has_room_for_is_refused(cluster):
    cluster.check(ONE)
    cluster.check(Needs(device="cpu", devices=2, cpus=2))
    said = refused(cluster.check, Needs(device="cpu", devices=3, cpus=3))
    assert said.startswith("it needs 3 CPUs on one node, more than any of the Ray cluster's 1 node")
    assert re.search(r"\(the largest: 2 CPUs and \d+ GiB\): lower execution", said)
    said = refused(cluster.check, Needs(device="cuda", devices=1))
    assert said.startswith("it needs 1 GPU and 1 CPU on one node")
    assert "no node has a GPU: set execution.device to auto or cpu" in said
    said = refused(cluster.check, Needs(device="cpu", devices=1, memory_gib=1e6))
    assert said.startswith("it needs 1 CPU and 1e+06 GiB on one node")
    said = refused(cluster.check, Needs(device="cuda", devices=1, machines=2))
    assert said.startswith("execution.machines names 2 machines")
    assert refused(cluster.check, Needs(device="cuda:1", devices=1)).startswith(
        "execution.device is 'cuda:1', a device of one machine, and Ray chooses where"
    )


@pytest.mark.slow
def test_no_more_is_begun_than_there_is_room_for(cluster):
    def lend(waiting):
        return cluster.lend(ONE, "it", waiting, Place())

    def ends(notes):
        assert notes == ["other assets of this run"]
        raise KeyboardInterrupt

    assert cluster.slots == 2
    with lend(ends) as first, lend(ends):
        assert (first.cpus, first.waited) == (1, False)
        with pytest.raises(KeyboardInterrupt), lend(ends):
            pass
        with cluster.lend(Needs(spreads=True), "shards", ends, Place()) as shards:
            assert shards.cpus == 1  # half of a node
    with lend(ends):
        pass
    assert RayCluster(1).slots == 1


@pytest.mark.slow
def test_a_node_with_other_versions_is_refused_with_both(cluster, monkeypatch, tmp_path):
    monkeypatch.setattr(on_ray, "installed", lambda: {**installed(), "torch": "1.0"})
    said = refused(cluster.check_home, tmp_path / "other_versions")
    assert "of the Ray cluster has other versions: torch " in said
    assert f"torch {installed()['torch']}, here 1.0: install the same on all nodes" in said


@pytest.mark.slow
def test_a_home_that_a_node_does_not_see_is_refused(cluster, monkeypatch, tmp_path):
    cluster.check_home(tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(Path, "touch", lambda path: None)
    said = refused(cluster.check_home, tmp_path / "home")
    assert said.startswith(f"FOMO_HOME is {tmp_path / 'home'}, and ")
    assert "does not see it: put it on a file system that all nodes" in said


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "ray://127.0.0.1:1", "no such host:6379", "127.0.0.1:99999"]
)
def test_an_address_that_does_not_answer_is_refused(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    said = refused(RayCluster.connected, None)
    assert said.startswith(f"RAY_ADDRESS is '{address}', and nothing answers there")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0"])
def test_an_address_of_something_else_is_refused_at_once(monkeypatch, answer):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.recv(100)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        said = refused(RayCluster.connected, None)
    assert "what answers there is no Ray cluster: name the port of its head" in said


@pytest.mark.slow
def test_nodes_of_one_host_are_each_asked(cluster, monkeypatch, tmp_path):
    (node,) = ray.nodes()
    other = {**node, "NodeID": "another", "NodeManagerAddress": "10.0.0.2"}
    monkeypatch.setattr(on_ray, "_alive", lambda: [other, node])

    def on(one, function):
        versions = {"fomo-dagster": "0.0"} if one is other else installed()
        return SimpleNamespace(remote=lambda *_: ray.put((versions, True)))

    monkeypatch.setattr(on_ray, "_on", on)
    said = refused(on_ray._check_nodes, tmp_path)
    assert f"node {node['NodeManagerHostname']} (10.0.0.2) of the Ray cluster has other" in said


@pytest.mark.slow
def test_without_ray_the_way_to_install_it_is_told(monkeypatch):
    monkeypatch.setenv("FOMO_EXECUTOR", "ray")
    monkeypatch.setitem(sys.modules, "fomo_dagster.graph.run.on_ray", None)
    said = refused(open_cluster)
    assert said.startswith("FOMO_EXECUTOR is 'ray', which is not installed")
    assert said.endswith("pip install 'fomo-dagster[ray]'")


@pytest.mark.slow
def test_each_node_is_asked_once_to_import_what_work_needs(cluster, monkeypatch):
    asked = []

    def on(node, function):
        asked.append((node["NodeID"], function))
        return SimpleNamespace(remote=lambda: None)

    monkeypatch.setattr(on_ray, "_on", on)
    cluster.preload()
    cluster.preload()
    (node,) = ray.nodes()
    assert asked == [(node["NodeID"], on_ray.preload)]
