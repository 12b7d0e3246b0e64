"""The sensor of growing streams: it asks once for what arrived, whatever another folder lacks."""

import os
from types import SimpleNamespace
from typing import ClassVar

import dagster as dg
import dagster_graphql
import pytest

from assets import growing
from assets.building import build_definitions
from assets.commands import Commands
from assets.growing import arrival_sensor, grow_job, show_what_arrived
from fomo_dagster.cli.running import COMMANDS
from fomo_dagster.errors import DataError
from fomo_dagster.graph.build.builder import build_project
from resources.run_contexts import RunContexts


@pytest.fixture
def folders(tmp_path):
    made = {name: tmp_path / name for name in ("one", "two")}
    for folder in made.values():
        folder.mkdir()
    return made


def asked(sensor, cursor):
    """Experiments that a look asks for, and the next cursor."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = sensor(dg.build_sensor_context(instance=instance, cursor=cursor))
    configs = [request.run_config["ops"] for request in result.run_requests]
    return [config["compute_what_arrived"]["config"]["experiment"] for config in configs], (
        result.cursor
    )


def test_each_arrival_is_asked_for_once(folders):
    sensor = arrival_sensor(folders, grow_job(COMMANDS))
    experiments, cursor = asked(sensor, None)
    assert experiments == ["one", "two"]
    assert asked(sensor, cursor) == ([], cursor)
    (folders["two"] / "2024").mkdir()
    (folders["one"] / "2024.partial").mkdir()
    experiments, cursor = asked(sensor, cursor)
    assert experiments == ["two"]
    assert asked(sensor, cursor) == ([], cursor)
    (folders["one"] / "2024.partial").rename(folders["one"] / "2024")
    assert asked(sensor, cursor)[0] == ["one"]


@pytest.mark.parametrize("layout", ["ant", "train/ant"])
def test_an_entry_that_was_repaired_is_asked_for_again(folders, layout):
    sensor = arrival_sensor(folders, grow_job(COMMANDS))
    classes, table = folders["one"] / "2024" / layout, folders["two"] / "2024.csv"
    classes.mkdir(parents=True)
    (classes / "0.png").write_bytes(b"broken")
    table.write_text("broken")
    for path in (classes, *classes.relative_to(folders["one"]).parents):
        os.utime(folders["one"] / path, (1, 1))
    os.utime(table, (1, 1))
    _, cursor = asked(sensor, None)
    (classes / "new.tmp").write_bytes(b"whole")
    (classes / "new.tmp").rename(classes / "0.png")
    experiments, cursor = asked(sensor, cursor)
    assert experiments == ["one"]
    table.write_text("whole")
    experiments, cursor = asked(sensor, cursor)
    assert experiments == ["two"]
    assert asked(sensor, cursor) == ([], cursor)


def test_a_folder_that_is_gone_stops_no_other(folders):
    sensor = arrival_sensor(folders, grow_job(COMMANDS))
    _, cursor = asked(sensor, None)
    folders["one"].rmdir()
    (folders["two"] / "2024").mkdir()
    assert asked(sensor, cursor)[0] == ["two"]


class Client:
    """Dagster's client of its UI, as far as a reload goes; it notes what it was asked."""

    asked: ClassVar[list[tuple[str, int, str]]] = []
    fails = False

    def __init__(self, host, port_number):
        self.address = (host, port_number)

    def reload_repository_location(self, location):
        if self.fails:
            raise dagster_graphql.DagsterGraphQLClientError("nobody is there")
        self.asked.append((*self.address, location))
        return SimpleNamespace(status=SimpleNamespace(value="SUCCESS"))


@pytest.mark.parametrize(("address", "fails"), [(None, False), ("::1:80", False), ("a:3", True)])
def test_the_ui_is_asked_to_load_again_where_it_is_known(monkeypatch, address, fails):
    monkeypatch.setattr(dagster_graphql, "DagsterGraphQLClient", Client)
    monkeypatch.setattr(Client, "asked", [])
    monkeypatch.setattr(Client, "fails", fails)
    monkeypatch.delenv("FOMO_UI", raising=False)
    if address is not None:
        monkeypatch.setenv("FOMO_UI", address)
    said = []
    origin = SimpleNamespace(code_location_origin=SimpleNamespace(location_name="here"))
    show_what_arrived(
        SimpleNamespace(
            run=SimpleNamespace(remote_job_origin=SimpleNamespace(repository_origin=origin)),
            log=SimpleNamespace(info=said.append, warning=said.append),
        )
    )
    assert Client.asked == ([("::1", 80, "here")] if address == "::1:80" else [])
    [line] = said
    assert ("was asked" in line) == (address == "::1:80")


class Fails:
    """A command that fails as long as it has a reason; as `Commands.run`."""

    reason: str | None = "shards/live_2024: no image can be read"

    def __call__(self, experiment, overrides, instance, command=""):
        assert (experiment, list(overrides), command) == ("toy", [], "sensor arrivals")
        if self.reason is not None:
            raise DataError(self.reason)


def test_an_arrival_that_failed_is_an_asset_of_trouble_until_it_is_mended(project, monkeypatch):
    reloads = []
    monkeypatch.setattr(growing, "show_what_arrived", reloads.append)
    (project.root / "incoming/2024/ant").mkdir(parents=True)
    project.write("toy", stream={"name": "live", "growing": "../incoming"})
    trouble, fails = dg.AssetKey(["toy", "trouble"]), Fails()

    def definitions():
        commands = Commands(run=fails, plan=lambda *_: [])
        return build_definitions(
            build_project(project.root), RunContexts.of(project.home), commands
        )

    def execute(job, **further):
        """Whether it succeeds."""
        return definitions().resolve_job_def(job).execute_in_process(
            instance=instance, raise_on_error=False, **further
        ).success  # fmt: skip

    def reasons():
        """Why the check failed by which the asset is red, each time."""
        logged = instance.all_logs("", of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        checks = [one.dagster_event.asset_check_evaluation_data for one in logged]
        assert not any(check.passed or check.asset_key != trouble for check in checks)
        return [check.metadata["reason"].value for check in checks]

    with dg.DagsterInstance.ephemeral() as instance:
        arrived = {"ops": {"compute_what_arrived": {"config": {"experiment": "toy"}}}}
        before = definitions().resolve_asset_graph().get_all_asset_keys()
        assert trouble not in before
        assert not execute("grow_streams", run_config=arrived)
        graph = definitions().resolve_asset_graph()
        assert graph.get_all_asset_keys() == before | {trouble}
        said = graph.get(trouble).description
        assert "no image can be read" in said
        assert str(project.root / "incoming") in said
        assert trouble not in definitions().resolve_job_def("toy").asset_layer.selected_asset_keys
        fails.reason = "the disk is full"
        assert not execute("__ASSET_JOB", asset_selection=[trouble])
        assert "the disk is full" in definitions().resolve_asset_graph().get(trouble).description
        fails.reason = None
        assert reasons() == ["shards/live_2024: no image can be read", "the disk is full"]
        assert execute("__ASSET_JOB", asset_selection=[trouble])
        assert definitions().resolve_asset_graph().get_all_asset_keys() == before
    assert len(reloads) == 3
