"""`fomo doctor`: what is fine, what could be better, and what will fail."""

import json
import re
import resource
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fomo_dagster.cli import doctor
from fomo_dagster.cli.main import app

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def only(request, monkeypatch):
    """Look at these topics alone; devices need torch, which is slow to import."""
    topics = getattr(request, "param", ("versions", "project", "home", "limits", "dagster"))
    chosen = {name: doctor.TOPICS[name] for name in topics}
    monkeypatch.setattr(doctor, "TOPICS", chosen)


def findings(status=0):
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def of(state, *topics):
    return [(one["found"], one["advice"]) for one in findings(int(state == "problem"))
            if one["state"] == state and one["topic"] in topics]  # fmt: skip


def test_a_project_in_order_has_no_problems(project):
    found = findings()
    assert {"problem"}.isdisjoint(one["state"] for one in found)
    said = [one["found"] for one in found]
    assert f"{project.root}: 1 experiment, 3 datasets declared" in said
    assert any(re.match(r"dagster \d.*torch \d.*timm \d", one) for one in said)


def test_the_printed_lines_are_the_findings(project, monkeypatch):
    now = shutil.disk_usage(project.root)  # which other tests change from moment to moment
    monkeypatch.setattr(shutil, "disk_usage", lambda path: now)
    printed = CliRunner().invoke(app, ["doctor"]).stdout
    for one in findings():
        assert f"{one['state']:7}  {one['found']}" in printed
        assert one["advice"] in printed


def test_a_wrong_file_is_a_problem_and_ends_in_a_status(project):
    project.write("toy", learning_rat=3)
    ((found, _),) = of("problem", "project")
    assert "unknown key 'learning_rat'" in found


def test_what_goes_with_no_other_experiment_or_dagster_is_a_problem(project):
    project.write("other", stream={"name": "toy", "datasets": ["birds"], "stages": 1})
    project.write("named", owners=["ann@example.photography"])
    found = dict(of("problem", "project"))
    assert len(found) == 2
    assert any("streams/toy" in said for said in found)
    assert any("ann@example.photography" in said for said in found)


def test_a_home_where_dagster_cannot_keep_its_databases_is_a_problem(project, monkeypatch):
    monkeypatch.setenv("FOMO_HOME", str(project.root / "what?"))
    ((found, _),) = of("problem", "dagster")
    assert "what?/dagster, for the path has a `?`" in found


def test_a_full_disk_and_few_files_are_notes_with_a_way_out(project, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage(2**40, 2**40, 2**31))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    noted = dict(of("note", "home", "limits"))
    assert noted["2.00 GiB of disk free"].endswith("set FOMO_HOME to a larger disk")
    assert "nofile" in noted["open files: 1,024, at most 4,096"]


def test_a_remote_store_that_cannot_be_used_is_a_problem(project, monkeypatch):
    monkeypatch.setenv("FOMO_STORE", "nosuch://bucket")
    ((found, _),) = of("problem", "home")
    assert "nosuch" in found


def test_another_dagster_home_is_noted(project, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", "/elsewhere")
    ((found, advice),) = of("note", "dagster")
    assert found == f"DAGSTER_HOME is /elsewhere, and `fomo` uses {project.home.dagster}"
    assert "export DAGSTER_HOME=$(fomo dagster-home)" in advice


@pytest.mark.parametrize("only", [("variables",)], indirect=True)
def test_a_misspelt_variable_is_noted_and_no_secret_is_printed(project, monkeypatch):
    monkeypatch.setenv("FOMO_HOEM", "/data")
    monkeypatch.setenv("FOMO_SMTP", "smtp://ada:secret@mail")
    monkeypatch.setenv("FOMO_PICTURES", "/pictures")
    assert of("note", "variables") == [
        ("FOMO_HOEM is '/data', and fomo reads no such variable", "did you mean FOMO_HOME?")
    ]
    assert "secret" not in json.dumps(findings())
    assert ("FOMO_PICTURES is '/pictures'", "") in of("fine", "variables")
    monkeypatch.setenv("FOMO_RELEASE", str(project.root))
    ((found, _),) = of("problem", "variables")
    assert found.startswith(f"{project.root} is no copy of the benchmark's repository: it has no")
    monkeypatch.setenv("FOMO_RELEASE", "")
    monkeypatch.setenv("FOMO_TRACKERS", "wandbe")
    ((found, _),) = of("problem", "variables")
    assert "wandb" in found


@pytest.mark.parametrize("only", [("devices",)], indirect=True)
def test_the_cpu_is_said(project):
    said = [one["found"] for one in findings()]
    assert re.match(r"CPU: \d+ cores, .* GiB of memory", said[0])


@pytest.mark.parametrize("only", [("executor",)], indirect=True)
def test_an_executor_that_cannot_be_used_is_a_problem(project, monkeypatch):
    monkeypatch.setenv("FOMO_DEVICES", "cpu:2")
    assert of("fine", "executor") == [("processes: 2 assets that need a device at once", "")]
    monkeypatch.setenv("FOMO_EXECUTOR", "rey")
    ((found, _),) = of("problem", "executor")
    assert found.startswith("FOMO_EXECUTOR is 'rey': ")
    monkeypatch.setenv("FOMO_EXECUTOR", "")
    monkeypatch.setenv("FOMO_DEVICES", "everything")
    ((found, _),) = of("problem", "executor")
    assert found.startswith("FOMO_DEVICES is 'everything'")


def test_every_variable_that_is_read_is_known():
    patterns = (
        "fomo_dagster/**/*.py",
        "assets/*.py",
        "resources/*.py",
        "experiments/**/*.yaml",
        "deploy/**/*.*",
    )
    files = [file for pattern in patterns for file in REPOSITORY.glob(pattern)]
    named = {name for file in files for name in re.findall(r"\bFOMO_[A-Z_]+\b", file.read_text())}
    assert named == set(doctor.VARIABLES)
