"""Trackers receive what the tables receive, once, and change nothing."""

from __future__ import annotations

import shutil
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from safetensors.torch import load_file

from assets.building import build_assets
from assets.specs import key_of
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import TrainingError
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.run.tracking import Tracking
from fomo_dagster.graph.work import stage as training_of_a_stage
from fomo_dagster.graph.work.checkpoints import steps_of
from fomo_dagster.progress import Callbacks
from fomo_dagster.tables.views import query
from fomo_dagster.trackers import choosing
from fomo_dagster.trackers.sending import Trackers
from fomo_dagster.trackers.tracker_queue import Patience
from resources.run_contexts import RunContexts

FIGURES = (
    "loss", "preservation_loss", "learning_rate", "gradient_norm", "logit_scale",
    "samples_per_second", "update_samples", "buffer_samples", "pretraining_samples",
)  # fmt: skip


class Recorder:
    """Keeps what it is sent: run → series → (step, value), and when there was what of a stage."""

    destination = place = "memory"

    def __init__(self, failing: bool = False) -> None:
        self.failing = failing
        self.series: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self.parameters: dict[str, dict[str, Any]] = {}
        self.trained = threading.Event()

    def open(self, run: Any, earlier: str | None, sent: int) -> Any:
        self.parameters.setdefault(run.name, {"configuration": run.configuration})
        return _Recording(self, run.name)


class _Recording:
    def __init__(self, recorder: Recorder, name: str) -> None:
        self.id, self._recorder = name, recorder

    def log(self, points: Any, parameters: Any) -> None:
        if self._recorder.failing:
            raise OSError("the disk of the tracker is full")
        for point in points:
            self._recorder.series[self.id][point.series].append((point.step, point.value))
            if point.series.startswith("stage_"):
                self._recorder.trained.set()
        self._recorder.parameters[self.id].update(parameters)

    def close(self) -> None:
        pass


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """What FOMO_TRACKERS=tensorboard stands for in the test."""
    made = Recorder()
    monkeypatch.setattr(choosing, "KINDS", {"tensorboard": lambda folder: made})
    monkeypatch.setenv("FOMO_TRACKERS", "tensorboard")
    return made


def in_tables(project: Any, experiment: str) -> dict[str, list[tuple[int, float]]]:
    """What the views hold of an experiment, under the names of the series."""
    told: dict[str, list[tuple[int, float]]] = defaultdict(list)

    def rows(sql: str) -> list[dict[str, Any]]:
        return query(project.home.root, sql.format(f"'{experiment}'")).to_dicts()

    for row in rows("SELECT * FROM training_steps WHERE experiment = {} ORDER BY stage, step"):
        for figure in FIGURES:
            told[f"stage_{row['stage']:03d}/{figure}"].append((row["step"], row[figure]))
    for row in rows("SELECT * FROM evaluations WHERE experiment = {} ORDER BY stage"):
        told[f"evaluation/{row['dataset']}/{row['metric']}"].append((row["stage"], row["value"]))
    for row in rows("SELECT * FROM scores WHERE experiment = {} ORDER BY stage"):
        for figure, value in row.items():
            if isinstance(value, float):
                told[f"scores/{figure}"].append((row["stage"], value))
    for kind in ("trained", "evaluation"):
        for figure in ("seconds", "samples", "steps"):
            found = rows(
                f"SELECT stage, (cost->>'{figure}')::DOUBLE AS value FROM artifacts "
                f"WHERE experiment = {{}} AND kind = '{kind}' ORDER BY stage"
            )
            told[f"cost/{kind}/{figure}"] += [
                (row["stage"], row["value"]) for row in found if row["value"] is not None
            ]
    return {series: points for series, points in told.items() if points}


def sorted_series(recorder: Recorder, run: str) -> dict[str, list[tuple[int, float]]]:
    return {series: sorted(points) for series, points in recorder.series[run].items()}


def test_a_run_of_hits_is_sent_all_that_the_tables_hold_and_only_once(
    finished_project: Any, recorder: Recorder
) -> None:
    run_experiment("toy", [])
    assert recorder.series.keys() == {"toy", "backbones/toy"}
    sent = sorted_series(recorder, "toy")
    expected = in_tables(finished_project, "toy")
    assert expected.items() <= sent.items()
    assert all(series.startswith("cost/") for series in sent.keys() - expected.keys())
    assert recorder.series["backbones/toy"]["stage_000/loss"]
    head = finished_project.home.heads.read("toy/trained_002")
    parameters = recorder.parameters["toy"]
    assert parameters["digests/trained_002"] == head.digest
    assert parameters["configuration"]["optimiser"]["learning_rate"] == 1e-3
    run_experiment("toy", [])
    assert sorted_series(recorder, "toy") == sent


def test_two_experiments_that_share_a_stage_both_get_it(
    finished_project: Any, recorder: Recorder
) -> None:
    finished_project.write("other")
    run_experiment("other", [])
    assert in_tables(finished_project, "other").items() <= recorder.series["other"].items()
    assert "toy" not in recorder.series


def test_a_changed_experiment_is_another_run(finished_project: Any, recorder: Recorder) -> None:
    run_experiment("toy", [])
    before = sorted_series(recorder, "toy")
    finished_project.write("toy", evaluation={"held_out": ["old"], "adaptation": ["cats"]})
    run_experiment("toy", [])
    assert sorted_series(recorder, "toy") == before
    expected = in_tables(finished_project, "toy")
    assert expected.items() <= sorted_series(recorder, "toy_2").items()
    assert "stage_003/loss" in expected  # found in the store, and sent all the same


def test_a_tracker_that_fails_changes_neither_digest_nor_weights(
    finished_project: Any, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    home, recorder.failing = finished_project.home, True
    before = home.heads.read("toy/trained_003")
    path = home.store.open(*before.artifacts["only"]).path("weights.safetensors")
    weights = load_file(shutil.copy(path, home.root / "expected.safetensors"))
    shutil.rmtree(home.root / "store" / "trained")
    run_experiment("toy", [])
    after = home.heads.read("toy/trained_003")
    assert (after.digest, after.status) == (before.digest, "computed")
    again = load_file(home.store.open(*after.artifacts["only"]).path("weights.safetensors"))
    assert all(tensor.equal(again[name]) for name, tensor in weights.items())
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("tracker tensorboard failed and is switched off") == 1
    assert "at memory: the disk of the tracker is full. Check TENSORBOARD_LOGGING_DIR" in said


def test_a_resumed_training_goes_on_in_the_same_run_without_a_step_twice(
    finished_project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 12
    finished_project.write(
        "toy", budget={"steps": steps}, execution={"device": "cpu", "resume_seconds": 1e-9}
    )
    graph, home = finished_project.graph(), finished_project.home
    recorder, trained = Recorder(), training_of_a_stage.Batches.iterate
    patience = Patience(between=0.0)

    def failing_at(last: int) -> Any:
        def iterate(self: Any, start: int, *rest: Any) -> Any:
            for step, batch in enumerate(trained(self, start, *rest), start):
                if step == last:
                    raise TrainingError("the light went out")
                yield batch

        return iterate

    for last in (5, 9, steps):
        trackers = Trackers({"memory": lambda: recorder}, tmp_path / "sent", patience)
        tracking = Tracking(graph, home, trackers, pytest.fail)
        context = RunContext(graph, home, callbacks=Callbacks(steps=tracking.steps))
        monkeypatch.setattr(training_of_a_stage.Batches, "iterate", failing_at(last))
        if last < steps:
            with pytest.raises(TrainingError):
                materialise("toy/trained_001", context)
        else:
            materialise("toy/trained_001", context)
        trackers.close(pytest.fail)
        assert [step for step, _ in recorder.series["toy"]["stage_001/loss"]] == list(range(last))
    head = home.heads.read("toy/trained_001")
    table = steps_of(home.store.open(*head.artifacts["only"]))
    sent = recorder.series["toy"]
    for figure in FIGURES:
        assert [value for _, value in sent[f"stage_001/{figure}"]] == table[figure].to_list()


def test_the_launchpad_s_trackers_are_refused_before_any_step(finished_project: Any) -> None:
    config = {"resources": {"run_contexts": {"config": {"trackers": ["tensorbord"]}}}}
    result = dg.materialize(
        build_assets(finished_project.graph()),
        selection=dg.AssetSelection.assets(key_of("toy/scores")),
        resources={"run_contexts": RunContexts.of(finished_project.home)},
        run_config=config,
        raise_on_error=False,
    )
    assert not result.success
    said = " ".join(str(event.message) for event in result.all_events)
    said += " ".join(str(e.event_specific_data) for e in result.all_events)
    assert "did you mean 'tensorboard'?" in said
    assert not result.get_step_success_events()
