"""What was made before a remote store was set is copied there on demand, and said to be alone."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.store.remotes import Remote
from tests.conftest import Project, enter

ALONE = "made here before FOMO_STORE was set"


def fomo(*arguments):
    return CliRunner().invoke(app, [*arguments], catch_exceptions=False)


def test_another_machine_finds_what_was_made_before(finished_project, tmp_path, monkeypatch):
    monkeypatch.setenv("FOMO_STORE", (tmp_path / "remote").as_uri())
    said = fomo("run", "toy").output
    count = len(finished_project.home.store.places.all())
    assert f"{count} artifacts were {ALONE}" in said
    assert ALONE not in fomo("run", "toy").output
    stray = finished_project.home.store.root / "trained" / ("0" * 32)
    shutil.copytree(next((stray.parent).iterdir()), stray)  # which nothing needs
    pushed = json.loads(fomo("store", "push", "--json").output)
    assert pushed["there"] + pushed["artifacts"] == count
    assert pushed["bytes"] > 0
    assert fomo("store", "push").output == f"0 artifacts pushed, 0 B; {count:,} were there\n"
    assert not (tmp_path / "remote/trained" / stray.name).exists()

    other = Project(tmp_path / "other")
    shutil.copytree(finished_project.root, other.root, ignore=shutil.ignore_patterns(".fomo"))
    enter(other, monkeypatch)
    monkeypatch.setenv("FOMO_STORE", (tmp_path / "remote").as_uri())
    assert [one.asset for one in resolve_request("toy", []).plan() if one.compute] == []
    assert ALONE not in fomo("run", "toy").output


def test_without_a_remote_there_is_nothing_to_push_to(finished_project):
    with pytest.raises(InputError, match="no remote store to push to: set FOMO_STORE to its URL"):
        fomo("store", "push")
    assert ALONE not in fomo("run", "toy").output


def test_a_push_replaces_what_is_damaged_there_and_goes_on_in_the_next_run(
    finished_project, tmp_path, monkeypatch
):
    remote = tmp_path / "remote"
    monkeypatch.setenv("FOMO_STORE", remote.as_uri())
    with monkeypatch.context() as within:
        within.setattr(Remote, "_upload", lambda *_, **__: _refuse())
        with pytest.raises(StoreError, match=r"could not be pushed .* pushed by the next run"):
            fomo("store", "push")
    assert not list(remote.glob("*/*/manifest.json"))
    fomo("run", "toy")
    assert len(list(remote.glob("*/*/manifest.json"))) == 1  # the one that was begun
    assert fomo("store", "push").exit_code == 0
    damaged = next(remote.glob("trained/*/*/weights.safetensors"))
    whole = damaged.read_bytes()
    damaged.write_bytes(b"")
    assert fomo("store", "push").output.startswith("1 artifact pushed")
    assert damaged.read_bytes() == whole


def _refuse():
    raise OSError("no space left on device")
