"""What goes on at once gives the same bits, stops where nothing is lost, and fails alone."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
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
FOMO = str(Path(sys.executable).with_name("fomo"))
LONG = {"budget.steps": 800, "stream.stages": 1, "execution.resume_seconds": 0.2}


def write(project, **changes):
    path = project.root / "experiments" / "seeds.yaml"
    path.write_text(yaml.safe_dump({**SWEEP, **changes}, sort_keys=False))


def settings(values):
    return [part for name, value in values.items() for part in ("--set", f"{name}={value}")]


def environment(devices="cpu:2", executor=""):
    return {"FOMO_DEVICES": devices, "FOMO_EXECUTOR": executor, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def start(project, nursery):
    """Starts `fomo run` of the sweep, which is ended where a test leaves it."""
    started = []

    def start(*arguments, devices="cpu:2", executor="", **options):
        variables = environment(devices, executor)
        started.append(
            nursery.start(project, "run", "seeds", *arguments, environment=variables, **options)
        )
        return started[-1]

    yield start
    for fomo in started:
        if fomo.poll() is None:
            fomo.kill()


@pytest.fixture
def run(start):
    """Status and output of `fomo run` of the sweep."""

    def run(*arguments, **options):
        fomo = start(*arguments, **options)
        return fomo.wait(), fomo.output

    return run


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


def two_trainings(project):
    """The processes of two trainings, once both are under way."""
    return until(lambda: len(found := trainings_under_way(project)) == 2 and found)


def insist(project, fomo, workers):
    """End a run whose workers do not stop when they are asked to, by asking twice."""
    for worker in workers:
        worker.suspend()
    fomo.send(signal.SIGINT)
    until(lambda: list(project.home.root.glob("launches/*/stop")))
    time.sleep(1.1)  # what comes sooner is the same request
    assert fomo.poll() is None
    fomo.send(signal.SIGINT)
    until(lambda: fomo.poll() is not None)
    assert fomo.poll() == 128 + signal.SIGINT, fomo.output
    for worker in workers:  # a cluster's die with what they were started by, as soon as they can
        with suppress(psutil.NoSuchProcess):
            worker.resume()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


@pytest.fixture
def cluster(monkeypatch):
    """A Ray cluster of two nodes, with a CPU each."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # other tests run beside
    made = Cluster(shutdown_at_exit=False)
    try:
        for _ in range(2):
            made.add_node(
                num_cpus=1, include_dashboard=False, include_log_monitor=False, no_monitor=True
            )  # fmt: skip
        monkeypatch.setenv("RAY_ADDRESS", made.address)
        yield made
    finally:
        for node in [*made.worker_nodes, made.head_node]:
            lose(made, node)


def lose(cluster, node):
    """Kill a node of a Ray cluster, with all that it runs."""
    family = [
        member
        for _, process in node.live_processes()
        for member in (
            psutil.Process(process.pid),
            *psutil.Process(process.pid).children(recursive=True),
        )
    ]
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    cluster.remove_node(node, allow_graceful=False)


def run_by_itself(executor):
    """Status and output of `fomo run` as a person starts it."""
    ended = subprocess.run(
        [FOMO, "run", "seeds"], env={**os.environ, **environment(executor=executor)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
    )  # fmt: skip
    return ended.returncode, ended.stdout


@pytest.mark.journey
def test_the_bits_are_those_of_one_process(project, cluster, run):
    write(project, stream=ONE_STAGE)
    assert run(devices="cpu:1", executor="in_process", whole=True)[0] == 0
    alone, cost = contents(project), figures(project)
    for executor, runs in (("", run_by_itself), ("ray", run)):
        shutil.rmtree(project.home.root)
        status, output = runs(executor=executor)
        assert status == 0, output
        assert (contents(project), figures(project)) == (alone, cost)


@pytest.mark.journey
@pytest.mark.kill
def test_what_was_insisted_on_or_lost_with_its_node_goes_on_at_another(project, cluster, start):
    write(project)
    fomo = start(*settings(LONG), executor="ray")
    workers = two_trainings(project)
    insist(project, fomo, workers)

    fomo = start(*settings(LONG), executor="ray")
    two_trainings(project)
    (lost,) = cluster.worker_nodes
    lose(cluster, lost)
    assert fomo.wait() == 0, fomo.output
    said = r"trained_001: its node of the Ray cluster went away; begun again from its resume point"
    assert len(re.findall(said, fomo.output)) == 1, fomo.output
    assert not list(project.home.root.glob("launches/*"))


def test_what_fails_takes_nothing_with_it_that_does_not_need_it(project, run):
    write(project, stream=ONE_STAGE, sweep={"optimiser.learning_rate": [1e30, 1e-4]})
    status, output = run()
    assert status == 1
    last = output[output.index("error: ") :]
    assert last.startswith("error: seeds: 1 of 2 experiments failed\n")
    assert last.count("seeds_learning_rate_1e30") == 2  # of the experiment, and of its asset
    assert "seeds_learning_rate_1e_4 is up to date" in output
    assert project.home.heads.read("leaderboard") is not None


@pytest.mark.journey
@pytest.mark.kill
def test_whatever_ends_a_run_or_a_part_of_it_the_next_goes_on_from_there(project, start, run):
    write(project)
    fomo = start(*settings(LONG))
    insist(project, fomo, two_trainings(project))

    fomo = start(*settings(LONG))
    workers = two_trainings(project)
    fomo.send(signal.SIGTERM)
    assert fomo.wait() == 128 + signal.SIGTERM, fomo.output
    assert "resume point" in fomo.output.splitlines()[-1], fomo.output
    assert not any(worker.is_running() for worker in workers)
    assert len(list(project.home.root.glob("resume/*/resume.pt"))) == 2
    assert not list(project.home.leases.rglob("slot_*"))

    fomo = start(*settings(LONG))
    workers = two_trainings(project)
    fomo.kill()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive

    fomo = start(*settings(LONG))
    two_trainings(project)[0].kill()
    assert fomo.wait() == 1
    assert "its process was ended by SIGKILL, probably for lack of memory" in fomo.output
    assert fomo.output.count("is up to date") == 1, fomo.output

    status, output = run(*settings(LONG))
    assert status == 0, output
    assert not list(project.home.root.glob("resume/*/resume.pt"))
