"""Schedules: in what time zone they come due, and that none begins a run beside another."""

import uuid

import dagster as dg
import pytest

from assets.growing import arrival_sensor, grow_job
from fomo_dagster.cli.dagster_home import HOST_TAG, PROCESS_TAG, run_tags
from fomo_dagster.cli.running import COMMANDS
from fomo_dagster.definitions import load
from fomo_dagster.errors import InputError


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as made:
        yield made


@pytest.fixture
def instance(storage):
    """Without any run."""
    yield storage
    storage.wipe()


def add_run(instance, status, job="toy", **tags):
    run = dg.DagsterRun(job_name=job, run_id=str(uuid.uuid4()), status=status, tags=tags)
    return instance.add_run(run).run_id


def schedule(name):
    return load().get_repository_def().get_schedule_def(name)


def tick(schedule, instance):
    """The runs asked for and what is said instead."""
    data = schedule.evaluate_tick(dg.build_schedule_context(instance=instance))
    return len(data.run_requests), data.skip_message


@pytest.mark.parametrize("status", ["STARTING", "STARTED", "CANCELING"])
def test_a_tick_beside_a_run_of_the_experiment_is_skipped_and_says_so(project, instance, status):
    project.write("toy", cron_schedule="* * * * *")
    of_toy = schedule("toy_schedule")
    assert tick(of_toy, instance) == (1, None)
    tags = {"fomo/experiment": "toy", **run_tags()}
    run = add_run(instance, dg.DagsterRunStatus[status], "grow_streams", **tags)
    asked, said = tick(of_toy, instance)
    assert asked == 0
    assert run in said
    instance.delete_run(run)
    assert tick(of_toy, instance) == (1, None)


def test_neither_ended_runs_nor_those_of_others_nor_dead_ones_hold_a_schedule_up(project, instance):
    project.write("toy", cron_schedule="* * * * *")
    started, mine = dg.DagsterRunStatus.STARTED, {"fomo/experiment": "toy"}
    add_run(instance, dg.DagsterRunStatus.FAILURE, **mine, **run_tags())
    add_run(instance, started, "other", **{"fomo/experiment": "other"}, **run_tags())
    gone = {HOST_TAG: run_tags()[HOST_TAG], PROCESS_TAG: "4194304-1"}
    dead = add_run(instance, started, **mine, **gone)
    assert tick(schedule("toy_schedule"), instance) == (1, None)
    assert instance.get_run_by_id(dead).status == dg.DagsterRunStatus.FAILURE


def test_the_look_at_the_sources_is_not_begun_beside_itself(project, instance):
    look = schedule("observe_sources_schedule")
    assert tick(look, instance) == (1, None)
    run = add_run(instance, dg.DagsterRunStatus.STARTED, "observe_sources", **run_tags())
    assert run in tick(look, instance)[1]


def test_an_arrival_waits_for_the_run_that_goes_on_and_is_not_forgotten(tmp_path, instance):
    folder = tmp_path / "one"
    folder.mkdir()
    sensor = arrival_sensor({"one": folder}, grow_job(COMMANDS))

    def look(cursor):
        return sensor(dg.build_sensor_context(instance=instance, cursor=cursor))

    tags = {"fomo/experiment": "one", **run_tags()}
    run = add_run(instance, dg.DagsterRunStatus.STARTED, "one", **tags)
    waiting = look(None)
    assert not waiting.run_requests
    assert run in waiting.skip_reason.skip_message
    instance.delete_run(run)
    (request,) = look(waiting.cursor).run_requests
    assert request.tags["fomo/experiment"] == "one"


def test_a_schedule_comes_due_in_its_time_zone(project):
    project.write("toy", cron_schedule="0 3 * * *", cron_timezone="Europe/Berlin")
    assert schedule("toy_schedule").execution_timezone == "Europe/Berlin"
    project.write("toy", cron_schedule="0 3 * * *")
    assert schedule("toy_schedule").execution_timezone in (None, "UTC")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cron_timezone": "Berlin"}, "no time zone 'Berlin'; did you mean 'Europe/Berlin'"),
        ({"cron_timezone": "new york"}, "'America/New_York'"),
        ({"cron_timezone": "Europe/Brelin"}, "'Europe/Berlin'"),
        ({"cron_timezone": "UTC", "cron_schedule": None}, "without cron_schedule"),
    ],
)
def test_a_time_zone_that_is_none_is_refused_with_the_nearest(project, changes, message):
    project.write("toy", **{"cron_schedule": "0 3 * * *"} | changes)
    with pytest.raises(InputError, match=message):
        project.load()
