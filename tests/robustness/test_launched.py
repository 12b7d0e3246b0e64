"""Stages by several processes, stopped in any way, and what they tell.

torchrun's agent and its workers are forked from the nursery. tests/graph/test_launching.py has one
launch by torchrun's own command.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import psutil
import pytest
from safetensors.torch import load_file

from assets.building import build_assets
from assets.specs import key_of
from fomo_dagster.cli.failures import failures_of, interruption_of
from fomo_dagster.graph.core.keys import step_of
from fomo_dagster.graph.run import clusters
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.run.tracking import Tracking
from fomo_dagster.home import Home
from fomo_dagster.trackers import choosing
from resources.run_contexts import RunContexts

pytestmark = pytest.mark.kill

ASSET = "toy/trained_001"
STEPS = 30
# An epsilon that leaves gradients of nothing but rounding small.
OPTIMISER = {"learning_rate": 1e-3, "epsilon": 1e-4}
TOGETHER = {"device": "cpu", "processes": 2, "resume_seconds": 1e-9}


@pytest.fixture(autouse=True)
def _forked(nursery: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "launched", nursery.launch)


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
            numbers = [json.loads(path.read_text() or "{}").get("process") for path in locks]
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


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """What the one asset that failed says."""
    (failure,) = failures_of(result, {step_of(ASSET): ASSET}).values()
    return str(failure)


def run(project: Any, config: Mapping[str, Any] | None = None) -> dg.ExecuteInProcessResult:
    """Materialise the stage, as Dagster does."""
    return dg.materialize(
        build_assets(project.graph()),
        selection=dg.AssetSelection.assets(key_of(ASSET)),
        resources={"run_contexts": RunContexts.of(project.home)},
        run_config=config,
        raise_on_error=False,
    )


def stopped(project: Any, number: signal.Signals, rank: int | None) -> str:
    """Why the stage failed when it was stopped so. Nothing of it is left but a resume point."""
    before = project.artifacts()
    stopper = Stopper(project.home, number, rank)
    stopper.start()
    result = run(project)
    stopper.join()
    assert not result.success
    assert len(stopper.processes) == 3
    assert stopper.listening == {"127.0.0.1"}
    assert not stopper.readable
    assert not any(map(alive, stopper.processes))
    assert project.artifacts() == before
    assert not list((project.home.root / "store" / ".staging").glob("*"))
    (point,) = project.home.resume_points.glob("*/resume.pt")
    said = interruption_of(result, {step_of(ASSET): ASSET}) if rank is None else failure_of(result)
    assert f"{point} is kept" in said
    return said


def test_a_stage_stopped_in_any_way_resumes_to_the_weights_of_one_process(
    finished_project: Any, tmp_path: Path
) -> None:
    """Stopped by SIGTERM of the launching process and of one of the launched, then one of them
    killed, and gone on with by processes that share the weights out."""
    project, changes = finished_project, {"budget": {"steps": STEPS}, "optimiser": OPTIMISER}
    project.write("toy", **changes, execution={"device": "cpu"})
    alone = Home(tmp_path / "alone")
    shutil.copytree(project.home.root, alone.root)
    expected = materialise(ASSET, RunContext(project.graph(), alone))
    project.write("toy", **changes, execution=TOGETHER)
    said = stopped(project, signal.SIGTERM, None)
    assert said.startswith("toy/trained_001: SIGTERM at stage 1, after ")
    said = stopped(project, signal.SIGTERM, 1)
    assert "one of 2 processes was stopped by SIGTERM at stage 1, after " in said
    project.write("toy", **changes, execution=TOGETHER | {"sharded": True})
    said = stopped(project, signal.SIGKILL, 1)
    assert "process 1 of 2 was ended by SIGKILL" in said

    result = run(project)
    assert result.success
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["processes"].value == 2
    head = project.home.heads.read(ASSET)
    assert head.digest == expected.head.digest  # processes are not identity
    assert head.cost["processes"] == 2
    artifact = project.home.store.open(*head.artifacts["only"])
    steps = pl.read_parquet(artifact.path("training_steps.parquet"))
    assert steps["step"].to_list() == list(range(STEPS))
    weights = load_file(artifact.path("weights.safetensors"))
    of_one = load_file(expected.artifacts["only"].path("weights.safetensors"))
    for name, tensor in of_one.items():
        assert (weights[name] - tensor).abs().max() <= 1e-5, name
    assert not list(project.home.root.glob("launches/*"))
    assert not list(project.home.resume_points.glob("*"))


class Recorder:
    """A tracker, and a run of its: keeps the steps whose loss it is sent."""

    id = destination = place = "memory"

    def __init__(self) -> None:
        self.steps: list[int] = []

    def open(self, run: Any, earlier: str | None, sent: int) -> Recorder:
        return self

    def log(self, points: Any, parameters: Any) -> None:
        self.steps += [point.step for point in points if point.series == "stage_001/loss"]

    def close(self) -> None:
        pass


def test_of_two_processes_the_first_alone_tells_its_steps_while_it_trains(
    finished_project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, recorder, told = 8, Recorder(), list[int]()
    execution = {"device": "cpu", "processes": 2}
    finished_project.write("toy", budget={"steps": steps}, execution=execution)
    before = Tracking.steps

    def spy(self: Any, asset: str, digest: str, rows: Any) -> None:
        told.extend(row["step"] for row in rows)
        before(self, asset, digest, rows)

    monkeypatch.setattr(Tracking, "steps", spy)
    monkeypatch.setattr(choosing, "KINDS", {"tensorboard": lambda folder: recorder})
    monkeypatch.setenv("FOMO_TRACKERS", "")  # is for definitions, and changes nothing
    config = {"resources": {"run_contexts": {"config": {"trackers": ["tensorboard"]}}}}
    assert run(finished_project, config).success  # as from the launchpad
    assert told == list(range(steps))
    assert recorder.steps == told
