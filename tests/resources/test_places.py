"""Who gets a device of those that are ready, or may be about to ask."""

import time

import dagster as dg
import pytest

from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.run import pending
from fomo_dagster.graph.run.devices import Claim, Devices, Lending
from fomo_dagster.graph.run.pending import Pending, Place, pending_of
from resources.dagster_internals import execute
from resources.step_threads import step_threads

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
PRIORITIES = {"trained_1": 4.0, "trained_2": 3.0, "evaluation_1": 2.0, "evaluation_0": 1.0}
SECONDS_BEFORE_IT_ASKS = {"evaluation_0": 0.1, "trained_2": 0.3}


@pytest.mark.slow
def test_an_evaluation_never_goes_before_a_training_that_is_about_to_ask(tmp_path):
    """One device. An evaluation waits for it already, another asks at once when the training before
    has ended; the next training asks last."""
    lending, order = Lending(Devices(cpu=1, is_declared=True), tmp_path), []

    def asset(name, *before):
        @dg.asset(name=name, deps=list(before))
        def compute(context):
            time.sleep(SECONDS_BEFORE_IT_ASKS.get(name, 0.0))
            place = Place(name, PRIORITIES, pending_of(context.run.run_id))
            needs = Needs(device="cpu", devices=1)
            with Claim(needs, lending, name, lambda notes: None, place).held():
                order.append(name)
                time.sleep(0.3)

        return compute

    assets = [
        asset("evaluation_0"), asset("trained_1"),
        asset("evaluation_1", "trained_1"), asset("trained_2", "trained_1"),
    ]  # fmt: skip
    definitions = dg.Definitions(assets, jobs=[dg.define_asset_job("all")], executor=step_threads)
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        job = definitions.resolve_job_def("all")
        assert execute(job, instance.create_run_for_job(job, run_config=QUIET), instance).success
    assert order == ["trained_1", "trained_2", "evaluation_1", "evaluation_0"]


def test_nothing_is_left_free_for_long_or_for_what_waits_for_something_else(monkeypatch):
    steps = Pending()
    first, second = (Place(name, {"a": 2.0, "b": 1.0}, steps) for name in "ab")
    steps.begin(["a", "b"])
    assert (first.must_wait(), second.must_wait()) == (False, True)
    first.leave()
    assert not second.must_wait()
    with first.asking():
        assert not second.must_wait()
    assert second.must_wait()
    monkeypatch.setattr(pending, "MOST_SECONDS", 0.0)
    assert not second.must_wait()
    monkeypatch.undo()
    steps.end("a")
    assert not second.must_wait()
