"""Stages and evaluations by several processes, through torchrun and Dagster Pipes; on the CPU."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.building import build_assets
from assets.specs import key_of
from fomo_dagster.cli import worker
from fomo_dagster.cli.failures import failures_of
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.machines import Machines
from fomo_dagster.graph.core.facts import identity
from fomo_dagster.graph.core.keys import step_of
from fomo_dagster.graph.run import launching
from fomo_dagster.graph.run.clusters import LocalCluster
from fomo_dagster.graph.run.devices import Lent
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.processes import Forked
from fomo_dagster.graph.run.run_context import Run, RunContext
from fomo_dagster.home import Home
from fomo_dagster.tables.views import query
from resources.run_contexts import RunContexts

ASSETS = {step_of(key): key for key in ("toy/trained_001", "toy/evaluation_003")}
STEPS = 30
# An epsilon that leaves gradients of nothing but rounding small.
OPTIMISER = {"learning_rate": 1e-3, "epsilon": 1e-4}
SINGLE_PROCESS = {"device": "cpu"}
SHARDED = {"device": "cpu", "processes": 2, "sharded": True}
TOGETHER = {"device": "cpu", "processes": 2, "resume_seconds": 1e-9}


def failure_of(result):
    """What the one asset that failed says."""
    (failure,) = failures_of(result, ASSETS).values()
    return str(failure)


def run(project: Any, key: str) -> dg.ExecuteInProcessResult:
    """Materialise one asset of the experiment `toy`, as Dagster does."""
    graph = project.graph()
    return dg.materialize(
        build_assets(graph),
        selection=dg.AssetSelection.assets(key_of(key)),
        resources={"run_contexts": RunContexts.of(project.home)},
        raise_on_error=False,
    )


def make_alone(project: Any, home: Home, key: str) -> Any:
    return materialise(key, RunContext(project.graph(), home))


@pytest.fixture
def longer(finished_project: Any) -> Any:
    finished_project.write(
        "toy", budget={"steps": STEPS}, optimiser=OPTIMISER, execution=SINGLE_PROCESS
    )
    return finished_project


def test_what_a_killed_launch_left_goes_with_the_next_hit(finished_project: Any) -> None:
    run = Run(cluster=LocalCluster(forked=Forked()))
    context = RunContext(finished_project.graph(), finished_project.home, run=run)
    node = context.graph.nodes["toy/evaluation_003"]
    of = identity(node.recipes(node.input_facts(context)))
    others, own = (context.home.root / "launches" / name for name in ("other_1", f"{of}_1"))
    for left in (others, own):
        left.mkdir(parents=True)
        (left / "task.json").write_text("{}")
    assert materialise(node.key, context).computed == ()
    assert others.exists()
    assert not own.exists()


def test_two_processes_evaluate_bit_for_bit_what_one_does(
    finished_project: Any, tmp_path: Path
) -> None:
    evaluation = {"held_out": ["old"], "prompts": ["a {}"]}
    finished_project.write("toy", evaluation=evaluation, execution=SINGLE_PROCESS)
    alone = Home(tmp_path / "alone")
    shutil.copytree(finished_project.home.root, alone.root)
    expected = make_alone(finished_project, alone, "toy/evaluation_003").artifacts
    finished_project.write("toy", evaluation=evaluation, execution=TOGETHER)
    assert run(finished_project, "toy/evaluation_003").success
    head = finished_project.home.heads.read("toy/evaluation_003")
    assert head.status == "computed"
    assert head.artifacts == {name: (a.kind, a.digest) for name, a in expected.items()}
    for name, one in expected.items():
        two = finished_project.home.store.open(*head.artifacts[name])
        for file in one.manifest["files"]:
            assert two.path(file).read_bytes() == one.path(file).read_bytes()
    # Each process made datasets alone, so device time is the sum of what these took.
    asked = (
        "SELECT devices, making_seconds FROM runs WHERE asset = 'toy/evaluation_003' "
        "ORDER BY began DESC LIMIT 1"
    )
    ((devices, seconds),) = query(finished_project.home.root, asked).rows()
    made = [finished_project.home.store.open(*of).cost["seconds"] for of in head.artifacts.values()]
    assert devices == 1
    assert 0 < seconds <= sum(made) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("kill -KILL $$", "the 2 processes failed: torchrun was ended by SIGKILL. The resume"),
        ("exit 3", "the 2 processes failed: torchrun ended with status 3. The resume point"),
        ("echo begun; echo broken; exit 3", "the 2 processes failed: broken. The resume point"),
    ],
)
def test_why_torchrun_itself_ended_is_said(
    longer: Any, monkeypatch: pytest.MonkeyPatch, end: str, said: str
) -> None:
    monkeypatch.setattr(launching, "torchrun", lambda execution, task: ["bash", "-c", end])
    longer.write("toy", budget={"steps": STEPS}, optimiser=OPTIMISER, execution=TOGETHER)
    result = run(longer, "toy/trained_001")
    assert said in failure_of(result)
    assert not list((longer.home.root / "store" / ".staging").glob("*"))


def test_an_evaluation_that_lost_its_processes_speaks_of_no_resume_point(
    finished_project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "torchrun", lambda execution, task: ["bash", "-c", "exit 3"])
    evaluation = {"held_out": ["old"], "prompts": ["a {}"]}
    finished_project.write("toy", evaluation=evaluation, execution=TOGETHER)
    said = failure_of(run(finished_project, "toy/evaluation_003"))
    assert "torchrun ended with status 3. What was finished is kept; run again to continue" in said


def test_a_process_that_stops_already_is_not_stopped_again() -> None:
    """Else the second signal of a stop would take the place of what the first one led to."""
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        worker._interrupt(signal.SIGTERM, None)
    try:
        raise KeyboardInterrupt("at a resume point")
    except KeyboardInterrupt:
        worker._interrupt(signal.SIGTERM, None)


def test_processes_are_launched_by_a_channel_and_nothing_else(longer: Any) -> None:
    longer.write("toy", budget={"steps": STEPS}, execution=TOGETHER)
    with pytest.raises(InputError, match=r"execution\.processes needs `fomo run` or Dagster"):
        materialise("toy/trained_001", RunContext(longer.graph(), longer.home))


def test_torchrun_gets_the_machines_and_what_starts_it_on_them(tmp_path: Path) -> None:
    task = tmp_path / "abc" / "task.json"
    command = launching.torchrun(Execution(processes=4), task)
    worker = ["-m", "fomo_dagster.cli.worker", str(task)]
    assert command[1:] == [
        "-m", "fomo_dagster.cli.agent", "--nnodes", "1", "--rdzv-backend", "fomo",
        "--rdzv-endpoint", "127.0.0.1:0", "--rdzv-id", "abc", "--nproc-per-node", "4", *worker
    ]  # fmt: skip
    machines = Machines(
        count=2, rendezvous="node01:29500", start=("srun", "--ntasks-per-node=1"), interface="ib0"
    )
    command = launching.torchrun(Execution(processes=8, machines=machines), task)
    assert command[:2] == ["srun", "--ntasks-per-node=1"]
    assert command[3:] == [
        "-m", "fomo_dagster.cli.agent", "--nnodes", "2", "--rdzv-backend", "fomo",
        "--rdzv-endpoint", "node01:29500", "--rdzv-id", "abc", "--rdzv-conf", "interface=ib0",
        "--nproc-per-node", "8", *worker,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"execution": {"processes": 10}}, "batch_size is 9, but 10 processes share each batch"),
        ({"execution": {"processes": 2, "device": "cuda:1"}}, "device is 'cuda:1'"),
        ({"execution": {"machines": {"count": 2, "rendezvous": "node01"}}}, "is not host:port"),
        ({"execution": {"sharded": True}}, "but processes is 1: raise it, or leave sharded out"),
        (
            {"execution": {"processes": 2, "sharded": True, "compile": True}},
            "sharded and compile exclude each other",
        ),
        (
            {"execution": SHARDED, "optimiser": {"name": "fira"}},
            "execution.sharded: optimiser.name is fira, which needs whole matrices",
        ),
        (
            {"execution": SHARDED, "method": {"preserve": {"name": "mas"}}},
            "method.preserve.name is mas, which needs the gradients of single pairs",
        ),
    ],
)
def test_what_processes_cannot_do_is_refused(
    project: Any, changes: dict[str, Any], says: str
) -> None:
    project.write("toy", **changes)
    with pytest.raises(InputError, match=says):
        project.load()


def test_processes_and_machines_change_no_artifact(project: Any) -> None:
    alone = project.graph().code_versions
    machines = {"count": 2, "rendezvous": "node01:29500"}
    project.write(
        "toy", execution={"device": "cpu", "processes": 4, "machines": machines, "sharded": True}
    )
    assert project.graph().code_versions == alone


def test_the_reason_is_the_process_that_was_lost_not_how_others_were_stopped():
    failed = "  rank      : {} (local_rank: {})\n  exitcode  : {} (pid: 7)\n"
    output = failed.format(0, 0, -15) + failed.format(1, 1, -9)
    assert launching._killed(output) == [("1", signal.SIGKILL)]
    assert launching._killed(failed.format(0, 0, -15)) == []
    assert launching._killed(failed.format(0, 0, 1)) == []


def test_a_process_has_the_threads_that_are_asked_for_or_those_of_its_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # seconds of the run's own process
    for asked, threads in (("", 3), ("2", 2), ("5,1", 5), ("many", 3), ("0", 3)):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert launching._threads(None, None, Lent(cpus=3)) == threads
    assert launching._threads(None, None, Lent()) is None
