"""One training at a time on an instance: the pool holds others back, and is never left taken."""

import subprocess
import sys
import threading
from pathlib import Path

import dagster as dg

from assets.building import TRAINING_POOL, build_assets
from assets.specs import key_of
from fomo_dagster.cli.dagster_home import prepare, run_tags
from fomo_dagster.cli.planning import undertake
from resources.workshops import Workshops


def train(project, instance):
    return dg.materialize(
        build_assets(undertake("toy", []).graph),
        selection=dg.AssetSelection.assets(key_of("toy/trained_001")),
        resources={"workshops": Workshops.of(project.home)},
        instance=instance,
    )


def held(instance):
    """The runs that hold or wait for a slot of the pool."""
    info = instance.event_log_storage.get_concurrency_info(TRAINING_POOL)
    return info.slot_count, info.active_run_ids | info.pending_run_ids


def take(instance, run_id):
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default(TRAINING_POOL)
    assert storage.claim_concurrency_slot(TRAINING_POOL, run_id, "step").is_claimed


def test_a_training_waits_for_the_one_of_another_run_and_leaves_the_pool_free(finished_project):
    instance = prepare(finished_project.home)
    finished_project.write("toy", optimiser={"learning_rate": 5e-4})
    take(instance, "another run")
    results = []
    waiting = threading.Thread(target=lambda: results.append(train(finished_project, instance)))
    waiting.start()
    while len(held(instance)[1]) < 2:  # until it asks for the slot
        waiting.join(0.05)
    waiting.join(1.0)
    assert not results
    instance.event_log_storage.free_concurrency_slots_for_run("another run")
    waiting.join(60)
    assert results[0].success
    assert held(instance) == (1, set())


def test_a_run_says_which_other_run_it_waits_for(finished_project):
    instance = prepare(finished_project.home)
    other = dg.DagsterRun(
        "other", "deadbeef-0000", status=dg.DagsterRunStatus.STARTED, tags=run_tags()
    )
    instance.add_run(other)
    take(instance, other.run_id)
    finished_project.write("toy", optimiser={"learning_rate": 5e-4})
    command = [str(Path(sys.executable).with_name("fomo")), "run", "toy"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        said = []
        for line in running.stdout:
            said.append(line.strip())
            if "waiting for run" in line:
                instance.report_run_failed(other, "it ends")
    assert running.returncode == 0
    assert said.count("waiting for run deadbeef, which trains") == 1


def test_a_training_that_fails_leaves_the_pool_free(finished_project, monkeypatch):
    instance = prepare(finished_project.home)
    finished_project.write("toy", optimiser={"learning_rate": 5e-4})

    def fail(*_, **__):
        raise RuntimeError("the device is gone")

    monkeypatch.setattr("fomo_dagster.graph.stage.train_model", fail)
    done = dg.materialize(
        build_assets(undertake("toy", []).graph),
        selection=dg.AssetSelection.assets(key_of("toy/trained_001")),
        resources={"workshops": Workshops.of(finished_project.home)},
        instance=instance,
        raise_on_error=False,
    )
    assert not done.success
    assert held(instance) == (1, set())


def test_what_a_run_held_that_is_over_or_unknown_is_freed_by_who_comes_next(finished_project):
    instance = prepare(finished_project.home)
    take(instance, "a run that nobody knows")
    script = (
        "from fomo_dagster.cli.dagster_home import prepare\n"
        "from fomo_dagster.home import Home\n"
        "prepare(Home.from_environment())\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert held(instance) == (1, set())
