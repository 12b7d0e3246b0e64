"""The executor that FOMO_EXECUTOR names, or that suits the devices."""

import pytest
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.errors import InputError
from fomo_dagster.graph.run.executors import open_cluster
from resources.executors import default_executor, executor_on


@pytest.mark.parametrize(
    ("named", "slots", "expected"),
    [
        ("", 1, "in_process"),
        ("", 2, "processes"),
        ("in_process", 2, "in_process"),
        (" processes ", 1, "processes"),
    ],
)
def test_the_setting_decides_or_else_the_number_of_devices(monkeypatch, named, slots, expected):
    monkeypatch.setenv("FOMO_EXECUTOR", named)
    monkeypatch.setenv("FOMO_DEVICES", f"cpu:{slots}")
    cluster = open_cluster()
    assert cluster.slots == slots
    assert default_executor().name == executor_on(cluster).name == expected
    assert cluster.has_workers is (expected == "processes")


def test_an_executor_that_there_is_not_is_refused_before_anything_is_planned(project, monkeypatch):
    monkeypatch.setenv("FOMO_EXECUTOR", "proceses")
    with pytest.raises(InputError, match="FOMO_EXECUTOR is 'proceses': did you mean 'processes'"):
        default_executor()
    result = CliRunner().invoke(app, ["run", "toy"])
    assert isinstance(result.exception, InputError)
    assert not project.home.root.exists()


def test_a_number_of_devices_that_cannot_be_is_refused(project):
    result = CliRunner().invoke(app, ["run", "toy", "--parallel", "0"])
    assert isinstance(result.exception, InputError)
    assert str(result.exception).startswith("--parallel is 0: expected a number from 1")
