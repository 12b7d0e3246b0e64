"""Trackers are chosen by name, and refused before any work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import InputError
from fomo_dagster.trackers import choosing
from fomo_dagster.trackers.choosing import check_names, named_by_environment, open_trackers


def test_none_is_wanted_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FOMO_TRACKERS", raising=False)
    assert named_by_environment() == ()
    assert not open_trackers((), tmp_path)


def test_names_stand_in_the_variable_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOMO_TRACKERS", " mlflow,tensorboard, mlflow,")
    assert named_by_environment() == ("mlflow", "tensorboard")


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"here: .* no tracker 'tensorbord': did you mean 'tensor"):
        check_names(["tensorbord"], "here")


def test_a_tracker_that_is_not_installed_is_refused_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(choosing, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'fomo-dagster\[wandb\]'"):
        open_trackers(["wandb"], tmp_path)


def test_a_folder_of_the_tracker_s_name_is_no_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "some_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(choosing, "KINDS", {"some_tracker": None})
    with pytest.raises(InputError, match="not installed"):
        open_trackers(["some_tracker"], tmp_path)


@pytest.mark.parametrize("names", ["nothing", "wandb"])
def test_a_command_refuses_them_before_any_work(
    project: Any, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    monkeypatch.setenv("FOMO_TRACKERS", names)
    monkeypatch.setattr(choosing, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="tracker"):
        run_experiment("toy", [])
    assert not project.home.root.exists()


def test_no_tracker_s_package_is_imported_before_there_is_something_to_send(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path;"
        "from fomo_dagster.trackers.choosing import open_trackers;"
        "open_trackers(['tensorboard', 'wandb', 'mlflow'], Path('.'));"
        "print(sorted({'tensorboard', 'wandb', 'mlflow', 'torch'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"
    assert not list(tmp_path.iterdir())
