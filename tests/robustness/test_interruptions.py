"""Signals that stop `fomo run`: nothing is lost, and the message and status say what it was."""

import signal

import pytest
import torch
from dagster import DagsterRunStatus

from fomo_dagster.cli.dagster_home import prepare
from fomo_dagster.graph.work.checkpoints import steps_table
from fomo_dagster.training.step_metrics import StepMetrics

pytestmark = pytest.mark.kill

SIGNALS = pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
EAGER = ("--set", "execution.resume_seconds=1e-9")


def last_run(project):
    return prepare(project.home).get_runs(limit=1)[0]


@SIGNALS
def test_a_signal_in_training_leaves_a_resume_point_that_the_next_run_takes_up(
    finished_project, nursery, number, status
):
    finished_project.write("toy", budget={"steps": 6})
    fomo = nursery.start(finished_project, "run", "toy", *EAGER, watch=("resume/", 8, 1.0))
    assert fomo.sign()
    fomo.send(number, as_terminal=number == signal.SIGINT)
    assert fomo.wait() == status
    lines = [line for line in fomo.output.splitlines() if "stopped" in line]
    assert len(lines) == 1
    assert "Traceback" not in fomo.output
    assert "error" not in fomo.output
    (point,) = finished_project.home.root.glob("resume/*/resume.pt")
    assert f"toy/trained_001: {number.name} at stage 1, after " in lines[0]
    assert f"{point} is kept" in lines[0]
    assert last_run(finished_project).status == DagsterRunStatus.CANCELED

    saved = torch.load(point, weights_only=True)["state"]
    done = saved["position"]
    assert 0 < done < 6
    assert nursery.run(finished_project, "run", "toy")[0] == 0
    head = finished_project.home.heads.read("toy/trained_001")
    artifact = finished_project.home.store.open(*head.artifacts["only"])
    _, steps = steps_table(artifact, experiment="toy", stage=1)
    # How fast a step went is never the same twice: these are the steps of the first process.
    before = saved["figures"][:, StepMetrics._fields.index("samples_per_second")].tolist()
    assert len(before) == done
    assert steps["samples_per_second"].to_list()[:done] == before
    assert not list(finished_project.home.root.glob("resume/*"))


def test_a_signal_elsewhere_stops_the_run_with_a_line_and_its_status(finished_project, nursery):
    finished_project.write("toy", evaluation={"held_out": ["old"], "prompts": ["a {}"]})
    moment = ("store/.staging/evaluation-", 3, 1.0)
    fomo = nursery.start(finished_project, "run", "toy", watch=moment)
    assert fomo.sign()
    fomo.send(signal.SIGTERM)
    assert fomo.wait() == 143
    assert fomo.output.splitlines()[-1] == (
        "stopped: stopped by SIGTERM; the same command goes on from here"
    )
    assert "Traceback" not in fomo.output
    assert last_run(finished_project).status == DagsterRunStatus.CANCELED
    assert nursery.run(finished_project, "run", "toy")[0] == 0
