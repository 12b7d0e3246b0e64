"""What goes on at once gives the same bits, stops where nothing is lost, and fails alone."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import yaml

pytestmark = pytest.mark.slow

SWEEP = {
    "extends": "toy",
    "stream": {"name": None, "datasets": ["birds"], "stages": 2},
    "evaluation": {"held_out": ["cats"]},
    "sweep": {"seed": [0, 1]},
}
ONE_STAGE = {**SWEEP["stream"], "stages": 1}
FOMO, RAY = (str(Path(sys.executable).with_name(name)) for name in ("fomo", "ray"))
LONG = {"budget.steps": 400, "stream.stages": 1, "execution.resume_seconds": 0.2}


def write(project, **changes):
    path = project.root / "experiments" / "seeds.yaml"
    path.write_text(yaml.safe_dump({**SWEEP, **changes}, sort_keys=False))


def settings(values):
    return [part for name, value in values.items() for part in ("--set", f"{name}={value}")]


def environment(devices, executor=""):
    return {
        **os.environ, "FOMO_DEVICES": devices, "FOMO_EXECUTOR": executor, "OMP_NUM_THREADS": "1",
    }  # fmt: skip


@contextmanager
def running(*arguments, devices="cpu:2", executor=""):
    """`fomo run`, which is ended where a test leaves it."""
    with subprocess.Popen(
        [FOMO, "run", *arguments], env=environment(devices, executor), stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def run(*arguments, **options):
    """The status and the output of `fomo run`."""
    with running(*arguments, **options) as process:
        output, _ = process.communicate(timeout=300)
    return process.returncode, output


def contents(project):
    """The files of every artifact, by their checksums."""
    return {
        path.parent.relative_to(project.home.root / "store").as_posix(): json.loads(
            path.read_text()
        )["files"]
        for path in project.home.root.glob("store/[!.]*/*/manifest.json")
    }


def figures(project):
    """The names of what the making of every artifact cost."""
    return {
        path.parents[1].name: set(json.loads(path.read_text())["cost"])
        for path in project.home.root.glob("store/[!.]*/*/record/cost.json")
    }


def most_at_once(output, kind):
    """How many assets of a kind were under way at once, by the lines of a run."""
    most, under_way = 0, set()
    for line in output.splitlines():
        word, asset = [*line.split(), "", ""][:2]
        if kind in asset and word == "begin":
            under_way.add(asset)
        elif word == "computed":
            under_way.discard(asset)
        most = max(most, len(under_way))
    return most


def until(happens):
    deadline = time.monotonic() + 120
    while not (found := happens()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def trainings_under_way(project):
    """The processes that train and have kept a resume point."""
    kept = {path.parent.name for path in project.home.root.glob("resume/*/resume.pt")}
    found = []
    launched = []
    with suppress(OSError):  # where a folder goes as it is listed
        launched = list(project.home.root.glob("launches/*/process_*"))
    for path in launched:
        with suppress(OSError, ValueError, psutil.NoSuchProcess):  # where it begins or ends now
            task = json.loads((path.parent / "task.json").read_text())
            if kept & set(task["digests"].values()):
                found.append(psutil.Process(json.loads(path.read_text())["process"]))
    return found


@pytest.fixture
def ray_nodes(monkeypatch):
    """The processes of two nodes of a Ray cluster, with a CPU each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    head = ["--head", f"--port={address.partition(':')[2]}", "--include-dashboard=false"]
    nodes = []
    try:
        for place in (head, [f"--address={address}"]):
            command = [RAY, "start", *place, "--num-cpus=1", "--block", "--disable-usage-stats"]
            nodes.append(
                subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
            )
            if place is head:
                until(lambda: answers(address))
        yield nodes
    finally:
        for node in reversed(nodes):
            end(node)


def answers(address):
    host, _, port = address.partition(":")
    with suppress(OSError), socket.create_connection((host, int(port))):
        return True
    return False


def end(node):
    """Kill a node of a Ray cluster, with all that it runs."""
    if node.poll() is not None:
        return
    family = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    node.wait()


def test_the_bits_are_those_of_one_process(project, ray_nodes):
    write(project, stream=ONE_STAGE)
    assert run("seeds", devices="cpu:1", executor="in_process")[0] == 0
    alone, cost = contents(project), figures(project)
    for executor in ("", "ray"):
        shutil.rmtree(project.home.root)
        status, output = run("seeds", executor=executor)
        assert status == 0, output
        assert (contents(project), figures(project)) == (alone, cost)
        assert most_at_once(output, "/trained_") >= 2


@pytest.mark.kill
def test_what_a_lost_node_did_goes_on_at_another(project, ray_nodes):
    write(project)
    with running("seeds", *settings(LONG), executor="ray") as process:
        until(lambda: len(trainings_under_way(project)) == 2)
        end(ray_nodes[1])
        output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    lost = r"trained_001: its node of the Ray cluster went away; begun again from its resume point"
    assert len(re.findall(lost, output)) == 1, output
    assert not list(project.home.root.glob("launches/*"))


def test_what_fails_takes_nothing_with_it_that_does_not_need_it(project):
    write(project, stream=ONE_STAGE, sweep={"optimiser.learning_rate": [1e30, 1e-4]})
    status, output = run("seeds")
    assert status == 1
    last = output[output.index("error: ") :]
    assert last.startswith("error: seeds: 1 of 2 experiments failed\n")
    assert last.count("seeds_learning_rate_1e30") == 2  # of the experiment, and of its asset
    assert "seeds_learning_rate_1e_4 is up to date" in output
    assert project.home.heads.read("leaderboard") is not None


@pytest.mark.kill
def test_whatever_ends_a_run_or_a_part_of_it_the_next_goes_on_from_there(project):
    write(project)

    def two():
        return until(lambda: len(found := trainings_under_way(project)) == 2 and found)

    with running("seeds", *settings(LONG)) as process:
        workers = two()
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "resume point" in output.splitlines()[-1], output
    assert not any(worker.is_running() for worker in workers)
    assert len(list(project.home.root.glob("resume/*/resume.pt"))) == 2
    assert not list(project.home.leases.rglob("slot_*"))

    with running("seeds", *settings(LONG)) as process:
        workers = two()
        process.kill()
        process.wait(60)
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive

    with running("seeds", *settings(LONG)) as process:
        two()[0].kill()
        output, _ = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "its process was ended by SIGKILL, probably for lack of memory" in output
    assert output.count("is up to date") == 1, output

    status, output = run("seeds", *settings(LONG))
    assert status == 0, output
    assert not list(project.home.root.glob("resume/*/resume.pt"))
