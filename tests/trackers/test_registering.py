"""Releases in registries of models: all of them, under the same aliases, and nothing twice."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.home import Home
from fomo_dagster.releases.promoting import give_alias, promote, remove_alias, roll_back
from fomo_dagster.releases.records import ReleaseLog
from fomo_dagster.releases.registering import registered_model
from fomo_dagster.trackers import choosing
from fomo_dagster.trackers.choosing import open_trackers
from fomo_dagster.trackers.sending import Trackers
from fomo_dagster.trackers.tracker import Model
from tests.releases.conftest import PASSED, stage
from tests.trackers.test_sending import QUICK, Recorder


class Registering(Recorder):
    """Keeps what it is told of releases."""

    def __init__(self, failing: bool = False) -> None:
        super().__init__()
        self.failing = failing
        self.models: list[Model] = []

    def register(self, model: Model) -> None:
        if self.failing:
            raise OSError("no space left on the server")
        self.models.append(model)


@pytest.fixture
def log(tmp_path: Path) -> ReleaseLog:
    return ReleaseLog(Home(tmp_path / "home"), "search")


def released(log: ReleaseLog, count: int) -> None:
    for number in range(1, count + 1):
        live = log.read().live
        promote(log, stage(log.home, number), [PASSED], live, "manual", first=live is None)


def register(tracker: Any, log: ReleaseLog) -> list[str]:
    """As a process of its own; the warnings."""
    warnings: list[str] = []
    trackers = Trackers({"memory": lambda: tracker}, log.home.root / "sent", QUICK)
    trackers.register("search", lambda: registered_model(log.home, "search"), warnings.append)
    trackers.close(warnings.append)
    return warnings


def test_a_registry_is_told_of_every_release_and_only_of_what_is_new(log: ReleaseLog) -> None:
    tracker = Registering()
    assert register(tracker, log) == []
    assert tracker.models == []  # nothing was released yet
    released(log, 2)
    for _ in range(2):
        register(tracker, log)
    (told,) = tracker.models
    assert [version.number for version in told.versions] == [1, 2]
    assert told.aliases == {"live": 2, "previous": 1}
    candidate = log.read().release(2).candidate
    assert candidate is not None
    tags = told.versions[1].tags
    assert (tags["experiment"], tags["stage"], tags["digest"]) == (
        "daily", "2", candidate.weights[1]
    )  # fmt: skip
    assert tags["knowledge_accumulation"] == "12.00"
    roll_back(log)
    register(tracker, log)
    assert tracker.models[-1].aliases == {"live": 1, "previous": 2}


def test_what_could_not_be_registered_is_said_and_registered_the_next_time(log: ReleaseLog) -> None:
    released(log, 1)
    tracker = Registering(failing=True)
    (said,) = register(tracker, log)
    assert "could not register the releases of 'search': " in said
    assert "no space left on the server" in said
    tracker.failing = False
    assert register(tracker, log) == []
    assert len(tracker.models) == 1


def test_a_tracker_that_has_no_registry_is_sent_nothing(log: ReleaseLog) -> None:
    released(log, 1)
    tracker = Recorder()
    assert register(tracker, log) == []
    assert tracker.opened == []


def test_commands_register_what_they_move(log: ReleaseLog, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Registering()
    monkeypatch.setattr(choosing, "KINDS", {"mlflow": lambda folder: tracker})
    monkeypatch.setenv("FOMO_TRACKERS", "mlflow")
    monkeypatch.setenv("FOMO_HOME", str(log.home.root))
    released(log, 2)
    for command, aliases in (
        (("rollback", "search"), {"live": 1, "previous": 2}),
        (("alias", "search", "stable", "2"), {"live": 1, "previous": 2, "stable": 2}),
        (("alias", "search", "stable", "--remove"), {"live": 1, "previous": 2}),
    ):
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert tracker.models[-1].aliases == aliases
    assert tracker.models[-1].removed == ("stable",)


@pytest.mark.slow
def test_mlflow_has_the_versions_and_the_aliases(
    log: ReleaseLog, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(variable, raising=False)
    folder = log.home.root / "trackers"
    folder.mkdir(parents=True)
    shutil.copy(empty_store, folder)

    def send() -> None:
        trackers = open_trackers(["mlflow"], log.home.root)
        trackers.register("search", lambda: registered_model(log.home, "search"), pytest.fail)
        trackers.close(pytest.fail)

    released(log, 2)
    give_alias(log, "stable", 1)
    give_alias(log, "latest", 1)  # which MLflow keeps for itself
    give_alias(log, "tried", 1)
    send()
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    live = client.get_model_version_by_alias("search", "live")
    assert (live.tags["number"], live.tags["experiment"], live.tags["stage"]) == ("2", "daily", "2")
    candidate = log.read().release(2).candidate
    assert candidate is not None
    assert live.source == f"fomo-store:trained/{candidate.weights[1]}"
    roll_back(log)
    remove_alias(log, "tried")
    live_now = log.read().live
    promote(log, stage(log.home, 3), [PASSED], live_now, "manual")
    send()
    aliases = dict(client.get_registered_model("search").aliases)
    assert {alias: int(version) for alias, version in aliases.items()} == {
        "live": 3, "previous": 1, "stable": 1
    }  # fmt: skip
    versions = client.search_model_versions("name='search'")
    assert sorted(version.tags["number"] for version in versions) == ["1", "2", "3"]
