"""Dagster's own commands on the same definitions, with and without a DAGSTER_HOME."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from fomo_dagster.cli.main import app

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = ("-m", "fomo_dagster.definitions")


def command(*arguments, **environment):
    """A command as a person gives it in the repository's folder."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**os.environ, **environment}, cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture
def dagster_home(project, monkeypatch):
    """What `fomo dagster-home` prints."""
    monkeypatch.delenv("DAGSTER_HOME")
    return CliRunner().invoke(app, "dagster-home", catch_exceptions=False).stdout.strip()


def test_an_asset_and_what_it_needs_are_materialised_without_a_dagster_home(project, monkeypatch):
    monkeypatch.delenv("DAGSTER_HOME")
    done = command("dagster", "asset", "materialize", "--select", '+key:"pools/toy"', *MODULE)
    assert done.returncode == 0, done.stderr
    assert "DAGSTER_HOME=$(fomo dagster-home)" in done.stderr
    assert project.home.heads.read("shards/old") is not None
    assert project.home.heads.read("pools/toy") is not None
    assert not project.home.dagster.exists()


def test_with_the_dagster_home_that_fomo_names_a_run_is_kept(project, dagster_home):
    assert dagster_home == str(project.home.dagster)
    home = {"DAGSTER_HOME": dagster_home}
    done = command("dagster", "job", "execute", *MODULE, "-j", "observe_sources", **home)
    assert done.returncode == 0, done.stderr
    assert "DAGSTER_HOME is not set" not in done.stderr
    with dg.DagsterInstance.from_config(dagster_home) as instance:
        assert [run.job_name for run in instance.get_runs()] == ["observe_sources"]


def test_definitions_validate_says_what_is_wrong_with_a_file_and_loads_the_others(
    project, dagster_home
):
    project.write("toy", learning_rat=1e-3)
    home = {"DAGSTER_HOME": dagster_home}
    done = command("dagster", "definitions", "validate", "-w", "workspace.yaml", **home)
    assert done.returncode == 0, done.stderr
    assert "unknown key 'learning_rat'" in done.stdout + done.stderr
