"""Stages and evaluations by several processes, through torchrun and Dagster Pipes; on the CPU."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import psutil
import pytest
from safetensors.torch import load_file

from assets.building import build_assets
from assets.specs import key_of
from fomo_dagster.cli import worker
from fomo_dagster.cli.failures import failures_of, interruption_of
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.machines import Machines
from fomo_dagster.graph.core.keys import step_of
from fomo_dagster.graph.run import launching
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.home import Home
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


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Stopper(threading.Thread):
    """Sends a signal to one of two launched processes, or to the one that launched them, once they
    have gone on from where they began."""

    def __init__(self, home: Home, number: signal.Signals, rank: int | None) -> None:
        super().__init__()
        self._home, self._number, self._rank = home, number, rank
        self._before = self._saved()
        self.processes: list[int] = []
        """Those that were launched, and torchrun's agent."""
        self.listening: set[str] = set()
        """The addresses at which they do."""
        self.readable: list[Path] = []
        """What others than the owner may read of what passes between them."""

    def run(self) -> None:
        for _ in range(6000):
            locks = sorted(self._home.root.glob("launches/*/process_*"))
            numbers = [int(path.read_text() or 0) for path in locks]
            if len(numbers) == 2 and all(numbers) and self._saved() not in (0, self._before):
                self.processes = [*numbers, parent_of(numbers[0])]
                self.listening = {
                    connection.laddr.ip
                    for process in map(psutil.Process, self.processes)
                    for connection in process.net_connections()
                    if connection.status == psutil.CONN_LISTEN
                }
                (folder,) = self._home.root.glob("launches/*")
                self.readable = [folder] if folder.stat().st_mode & 0o077 else []
                os.kill(os.getpid() if self._rank is None else numbers[self._rank], self._number)
                return
            time.sleep(0.02)

    def _saved(self) -> int:
        """When the resume point was written; 0: there is none."""
        for point in self._home.resume_points.glob("*/resume.pt"):
            return point.stat().st_mtime_ns
        return 0


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def stopped(project: Any, number: signal.Signals, rank: int | None) -> str:
    """Why the stage failed when it was stopped so. Nothing of it is left but a resume point."""
    before = project.artifacts()
    stopper = Stopper(project.home, number, rank)
    stopper.start()
    result = run(project, "toy/trained_001")
    stopper.join()
    assert not result.success
    assert len(stopper.processes) == 3
    assert stopper.listening == {"127.0.0.1"}
    assert not stopper.readable
    assert not any(map(alive, stopper.processes))
    assert project.artifacts() == before
    assert not list((project.home.root / "store" / ".staging").glob("*"))
    (point,) = project.home.resume_points.glob("*/resume.pt")
    said = interruption_of(result, ASSETS) if rank is None else failure_of(result)
    assert f"{point} is kept" in said
    return said


@pytest.fixture
def longer(finished_project: Any) -> Any:
    finished_project.write(
        "toy", budget={"steps": STEPS}, optimiser=OPTIMISER, execution=SINGLE_PROCESS
    )
    return finished_project


@pytest.mark.kill
def test_a_stage_stopped_in_any_way_resumes_to_the_weights_of_one_process(
    longer: Any, tmp_path: Path
) -> None:
    """Stopped by SIGTERM of the launching process and of one of the launched, then one of them
    killed, and gone on with by processes that share the weights out."""
    alone = Home(tmp_path / "alone")
    shutil.copytree(longer.home.root, alone.root)
    expected = make_alone(longer, alone, "toy/trained_001")
    changes = {"budget": {"steps": STEPS}, "optimiser": OPTIMISER}
    longer.write("toy", **changes, execution=TOGETHER)
    said = stopped(longer, signal.SIGTERM, None)
    assert said.startswith("toy/trained_001: SIGTERM at stage 1, after ")
    said = stopped(longer, signal.SIGTERM, 1)
    assert "one of 2 processes was stopped by SIGTERM at stage 1, after " in said
    longer.write("toy", **changes, execution=TOGETHER | {"sharded": True})
    said = stopped(longer, signal.SIGKILL, 1)
    assert "process 1 of 2 was ended by SIGKILL" in said

    result = run(longer, "toy/trained_001")
    assert result.success
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["processes"].value == 2
    head = longer.home.heads.read("toy/trained_001")
    assert head.digest == expected.head.digest  # processes are not identity
    assert head.cost["processes"] == 2
    artifact = longer.home.store.open(*head.artifacts["only"])
    steps = pl.read_parquet(artifact.path("training_steps.parquet"))
    assert steps["step"].to_list() == list(range(STEPS))
    weights = load_file(artifact.path("weights.safetensors"))
    of_one = load_file(expected.artifacts["only"].path("weights.safetensors"))
    for name, tensor in of_one.items():
        assert (weights[name] - tensor).abs().max() <= 1e-5, name
    assert not list(longer.home.root.glob("launches/*"))
    assert not list(longer.home.resume_points.glob("*"))


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
