"""TensorBoard, MLflow and Weights & Biases themselves: what is sent is what their files hold."""

from __future__ import annotations

import json
import shutil
import signal
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fomo_dagster.trackers.choosing import KINDS, open_trackers
from fomo_dagster.trackers.tracker import Entry, Point, Run

Series = dict[str, list[tuple[int, float]]]
VARIABLES = (
    "TENSORBOARD_LOGGING_DIR", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE",
    "WANDB_DIR", "WANDB_PROJECT",
)  # fmt: skip
CONFIGURATION = {"optimiser": {"learning_rate": 1e-3}, "stream": {"datasets": ["a", "b"]}}


def of_tensorboard(home: Path) -> tuple[Series, dict[str, str]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(home / "trackers" / "tensorboard" / "toy"), {"scalars": 0})
    events.Reload()
    tags = events.Tags()
    scalars = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags["scalars"]
    }
    texts = {
        tag.removesuffix("/text_summary"): events.Tensors(tag)[-1].tensor_proto.string_val[0]
        for tag in tags["tensors"]
    }
    told = {name: text.decode() for name, text in texts.items()}
    rows = [row.split("|") for row in told.pop("configuration", "").splitlines()[2:]]
    return scalars, told | {name.strip(): value.strip() for _, name, value, _ in rows}


def of_mlflow(home: Path) -> tuple[Series, dict[str, str]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home / 'trackers' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fomo")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "toy"
    series = {
        name: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }
    return series, run.data.params


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file, a log as LevelDB writes it: blocks of 32 KiB, in which a
    record's parts have a checksum, a length and a type."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, whole = path.read_bytes(), b""
    position = 7
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def of_wandb(home: Path) -> tuple[Series, dict[str, str]]:
    series: dict[str, list[tuple[int, float]]] = defaultdict(list)
    parameters: dict[str, str] = {}
    last, runs = -1, set()
    for path in sorted((home / "trackers" / "wandb").glob("offline-run-*/*.wandb")):
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                assert (record.run.display_name, record.run.project) == ("toy", "fomo")
                runs.add(record.run.run_id)
            updates = {"run": record.run.config.update, "config": record.config.update}
            for item in updates.get(kind, ()):
                parameters[item.key or ".".join(item.nested_key)] = item.value_json
            if kind == "history":
                values = {
                    item.key or item.nested_key[0]: json.loads(item.value_json)
                    for item in record.history.item
                }
                assert values["_step"] > last, "wandb would drop it"
                last = values["_step"]
                for name, value in values.items():
                    section, _, figure = name.partition("/")
                    if figure and figure != "step":
                        series[name].append((values[f"{section}/step"], value))
    assert len(runs) == 1
    return dict(series), {k: v.strip('"') for k, v in parameters.items()}


READERS = {"tensorboard": of_tensorboard, "mlflow": of_mlflow, "wandb": of_wandb}


@pytest.fixture
def at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: Any) -> Path:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    if "mlflow" in request.node.name:
        (tmp_path / "home" / "trackers").mkdir(parents=True)
        shutil.copy(request.getfixturevalue("empty_store"), tmp_path / "home" / "trackers")
    return tmp_path / "home"


def steps(first: int, last: int) -> Entry:
    points = [
        Point(f"stage_001/{figure}", step, value)
        for step in range(first, last)
        for figure, value in (("loss", 1 / (step + 1)), ("update_samples", 4))
    ]
    return Entry("trained_001/steps", "a", tuple(points))


SCORES = Entry(
    "evaluation_002", "b", (Point("evaluation/cats/recall_at_5", 2, 62.5),),
    {"digests/evaluation_002": "b"},
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_their_files_hold_what_was_sent_over_two_processes(name: str, at_home: Path) -> None:
    run = Run("toy", CONFIGURATION)
    for entries in ([steps(0, 600)], [steps(300, 602), SCORES], [SCORES]):
        trackers = open_trackers([name], at_home)
        for entry in entries:
            trackers.send(run, lambda entry=entry: [entry], pytest.fail)  # type: ignore[misc]
        trackers.close(pytest.fail)
    series, parameters = READERS[name](at_home)
    assert series.keys() == {
        "stage_001/loss", "stage_001/update_samples", "evaluation/cats/recall_at_5"
    }  # fmt: skip
    assert [step for step, _ in series["stage_001/loss"]] == list(range(602))
    assert [v for _, v in series["stage_001/loss"]] == pytest.approx([1 / s for s in range(1, 603)])
    assert series["stage_001/update_samples"] == [(step, 4) for step in range(602)]
    assert series["evaluation/cats/recall_at_5"] == [(2, 62.5)]
    assert parameters["digests/evaluation_002"] == "b"
    rate = parameters.get("optimiser.learning_rate") or json.loads(parameters["optimiser"])
    assert rate in ("0.001", {"learning_rate": 1e-3})
    assert [path.name for path in at_home.parent.iterdir()] == ["home"]  # and nowhere else


@pytest.mark.kill
@pytest.mark.parametrize("name", KINDS)
def test_a_kill_loses_nothing_of_what_was_sent(name: str, at_home: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path;"
        "from fomo_dagster.trackers.choosing import KINDS;"
        "from fomo_dagster.trackers.tracker import Point, Run;"
        "run = KINDS[sys.argv[1]](Path(sys.argv[2])).open(Run('toy', {}), None, 0);"
        "run.log([Point('stage_001/loss', step, step / 4) for step in range(9)], {});"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, name, str(at_home / "trackers")])
    assert done.returncode == -signal.SIGKILL
    series, _ = READERS[name](at_home)
    assert series == {"stage_001/loss": [(step, step / 4) for step in range(9)]}


def test_a_store_of_mlflow_s_that_was_not_finished_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fomo_dagster.trackers import mlflow

    def killed(uri: str) -> None:
        Path(uri.removeprefix("sqlite:///")).write_text("the first of many tables")
        raise KeyboardInterrupt

    monkeypatch.setattr(mlflow, "MlflowClient", killed)
    with pytest.raises(KeyboardInterrupt):
        mlflow.MLflow(tmp_path)
    assert not list(tmp_path.glob("*.db"))


@pytest.mark.slow
def test_mlflow_begins_a_new_run_where_the_store_is_another(
    at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    from fomo_dagster.trackers.mlflow import MLflow

    folder = at_home / "trackers"
    tracker = MLflow(folder)
    run = tracker.open(Run("toy", {"seed": 1, "long": "x" * 7000, "a*b": None}), None, 0)
    again = tracker.open(Run("toy", {"seed": 2}), run.id, 3)
    assert again.id == run.id
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    parameters = client.get_run(run.id).data.params
    assert (parameters["seed"], parameters["a_b"], len(parameters["long"])) == ("1", "null", 6000)
    client.delete_run(run.id)
    assert tracker.open(Run("toy", {}), run.id, 3).id != run.id
    assert tracker.open(Run("toy", {}), "0" * 32, 3).id not in ("0" * 32, run.id)


def test_a_folder_of_tensorboard_that_was_deleted_is_another_run(
    at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fomo_dagster.trackers.tensorboard import TensorBoard

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(at_home / "elsewhere"))
    tracker = TensorBoard(at_home)
    first = tracker.open(Run("backbones/toy", {}), None, 0)
    first.close()
    assert tracker.open(Run("backbones/toy", {}), first.id, 0).id == first.id
    shutil.rmtree(at_home / "elsewhere" / "backbones")
    assert tracker.open(Run("backbones/toy", {}), first.id, 0).id != first.id


def test_a_database_of_mlflow_s_that_cannot_be_written_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what MLflow does, which goes on trying until the tracker is said not to answer."""
    from fomo_dagster.trackers.mlflow import MLflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'nowhere' / 'mlflow.db'}")
    tracker = MLflow(tmp_path)
    with pytest.raises(OSError, match=r"nowhere/mlflow\.db: unable to open database file"):
        tracker.open(Run("toy", CONFIGURATION), None, 0)


def test_a_mode_that_wandb_does_not_have_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fomo_dagster.trackers.wandb import WeightsAndBiases

    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(ValueError, match="WANDB_MODE is 'sometimes', and may be offline, online"):
        WeightsAndBiases(tmp_path)
