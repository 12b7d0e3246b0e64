"""A killed run's pool slot and its unfinished state stand in nobody's way."""

import logging
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._daemon.monitoring import concurrency

from fomo_dagster.cli.dagster_home import clearing, end_dead_runs, prepare

# Dagster's own way in: no tags, a slot of the pool "training", and a step that never ends.
UNTAGGED = """
import sys, time, dagster as dg
@dg.asset(pool="training")
def endless():
    print("working", flush=True)
    time.sleep(600)
dg.materialize([endless], instance=dg.DagsterInstance.get())
"""


def slot_holders(instance):
    return instance.event_log_storage.get_concurrency_info("training").active_run_ids


@pytest.fixture
def instance(project):
    return prepare(project.home)


@pytest.fixture
def other(instance):
    """A run of Dagster's own that holds the slot, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", UNTAGGED], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    while "working" not in process.stdout.readline():
        assert process.poll() is None
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_living_run_keeps_its_slot(instance, other):
    end_dead_runs(instance)
    assert len(slot_holders(instance)) == 1
    assert instance.get_runs()[0].status == DagsterRunStatus.STARTED


def test_a_killed_run_without_tags_is_failed_and_its_slot_free(instance, other):
    (run,) = instance.get_runs()
    assert slot_holders(instance) == {run.run_id}
    other.kill()  # and not waited for: a zombie holds nothing either
    deadline = time.monotonic() + 20
    while slot_holders(instance) and time.monotonic() < deadline:
        end_dead_runs(instance)
    assert slot_holders(instance) == set()
    assert instance.get_run_by_id(run.run_id).status == DagsterRunStatus.FAILURE


def test_a_run_that_waits_for_the_slot_gets_it_once_its_holder_is_killed(
    instance, other, monkeypatch
):
    monkeypatch.setattr("fomo_dagster.cli.dagster_home.SECONDS_BETWEEN_CLEARINGS", 0.1)

    @dg.asset(pool="training")
    def short():
        other.kill()

    @dg.asset
    def killer():
        other.kill()

    told = []
    with clearing(instance, told.append):
        assert dg.materialize([killer, short], instance=instance).success
    assert slot_holders(instance) == set()


def test_a_run_that_began_to_wait_when_the_slot_was_freed_gets_it(instance):
    """Dagster looks for a free slot, and then writes that the run waits: in between it was freed,
    and whom it went to was decided."""
    run = instance.create_run_for_job(dg.GraphDefinition("nothing").to_job())
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default("training")
    storage.add_pending_step("training", run.run_id, "step", should_assign=False)
    assert not storage.claim_concurrency_slot("training", run.run_id, "step").is_claimed
    end_dead_runs(instance)
    assert storage.claim_concurrency_slot("training", run.run_id, "step").is_claimed


def test_a_process_that_got_the_number_of_a_killed_one_is_not_taken_for_it(
    instance, other, monkeypatch
):
    """As if numbers had come round: a process of that number runs, but it began an hour later."""
    now = time.time()
    monkeypatch.setattr("fomo_dagster.cli.dagster_home.time.time", lambda: now + 3600)
    end_dead_runs(instance)
    assert slot_holders(instance) == set()


def test_fomo_run_killed_in_training_leaves_no_slot_to_the_next(finished_project, nursery):
    finished_project.write("toy", optimiser={"learning_rate": 5e-4})
    fomo = nursery.start(finished_project, "run", "toy", watch=("store/.staging/trained-", 2, 600))
    assert fomo.sign(), fomo.output
    fomo.kill()
    assert os.environ["DAGSTER_HOME"] == str(finished_project.home.dagster)
    instance = dg.DagsterInstance.get()
    (killed,) = slot_holders(instance)
    assert instance.get_run_by_id(killed).status == DagsterRunStatus.STARTED
    assert nursery.run(finished_project, "run", "toy")[0] == 0
    assert slot_holders(instance) == set()
    assert instance.get_run_by_id(killed).status == DagsterRunStatus.FAILURE


def test_the_daemon_frees_the_slots_of_runs_that_ended_badly(instance, monkeypatch):
    """What `dagster dev` does for runs of the UI, where no `fomo run` comes along."""
    assert instance.run_monitoring_enabled
    storage = instance.event_log_storage
    run = instance.create_run_for_job(dg.GraphDefinition("nothing").to_job())
    storage.initialize_concurrency_limit_to_default("training")
    assert storage.claim_concurrency_slot("training", run.run_id, "step").is_claimed
    instance.report_run_failed(run)
    soon = datetime.now(UTC) + timedelta(seconds=60)
    monkeypatch.setattr(concurrency, "get_current_datetime", lambda: soon)
    process = SimpleNamespace(instance=instance)
    assert list(
        concurrency.execute_concurrency_slots_iteration(process, logging.getLogger("daemon"))
    )
    assert slot_holders(instance) == set()
