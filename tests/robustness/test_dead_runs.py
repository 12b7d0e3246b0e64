"""A killed run stands in nobody's way: it is told to have failed, and its slot is free."""

import os
import subprocess
import sys
import time

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from fomo_dagster.cli.dagster_home import end_dead_runs, prepare

pytestmark = pytest.mark.kill

# Dagster's own way in: no tags, and a step that never ends.
UNTAGGED = """
import sys, time, dagster as dg
@dg.asset
def endless():
    print("working", flush=True)
    time.sleep(600)
dg.materialize([endless], instance=dg.DagsterInstance.get())
"""


@pytest.fixture
def instance(project):
    return prepare(project.home)


@pytest.fixture
def other(instance):
    """A run of Dagster's own, in a process of its own."""
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


def test_a_run_without_tags_has_failed_once_its_process_is_killed(instance, other):
    (run,) = instance.get_runs()
    end_dead_runs(instance)
    assert instance.get_run_by_id(run.run_id).status == DagsterRunStatus.STARTED
    other.kill()  # and not waited for: a zombie is dead too
    deadline = time.monotonic() + 20
    while not instance.get_run_by_id(run.run_id).is_finished and time.monotonic() < deadline:
        end_dead_runs(instance)
    assert instance.get_run_by_id(run.run_id).status == DagsterRunStatus.FAILURE


def test_a_process_that_got_the_number_of_a_killed_one_is_not_taken_for_it(
    instance, other, monkeypatch
):
    """As if numbers had come round: a process of that number runs, but it began an hour later."""
    now = time.time()
    monkeypatch.setattr("fomo_dagster.cli.dagster_home.time.time", lambda: now + 3600)
    end_dead_runs(instance)
    assert instance.get_runs()[0].status == DagsterRunStatus.FAILURE


def test_fomo_run_killed_in_training_leaves_no_slot_to_the_next(finished_project, nursery):
    finished_project.write("toy", optimiser={"learning_rate": 5e-4})
    fomo = nursery.start(finished_project, "run", "toy", watch=("store/.staging/trained-", 2, 600))
    assert fomo.sign(), fomo.output
    (slot,) = finished_project.home.leases.glob("devices/*/cpu/slot_0")
    assert slot.read_text().startswith(f"process {fomo.process}, which is making toy/trained_001 i")
    fomo.kill()
    assert os.environ["DAGSTER_HOME"] == str(finished_project.home.dagster)
    instance = dg.DagsterInstance.get()
    (killed,) = instance.get_runs(dg.RunsFilter(statuses=[DagsterRunStatus.STARTED]))
    status, output = nursery.run(finished_project, "run", "toy")
    assert status == 0, output
    assert "waiting" not in output
    assert not slot.exists()
    assert instance.get_run_by_id(killed.run_id).status == DagsterRunStatus.FAILURE
