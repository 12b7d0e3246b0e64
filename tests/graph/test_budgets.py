"""Budgets in memory-adjusted FLOPs: how many steps they buy, and what depends on them."""

import json
import sys

import pytest

from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import InputError
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.nodes.budget import BUDGET
from fomo_dagster.graph.work import budgets
from fomo_dagster.graph.work.budgets import MemoryAdjusted
from fomo_dagster.graph.work.counted_costs import encoding_flops
from fomo_dagster.models import operations
from fomo_dagster.models.operations import of_encoding
from fomo_dagster.training.compute import Cost

# A step of the toy costs 0.003646368 GFLOPs in a batch of 9, whose memory is the unit.
TWO_STEPS = 3 * 2 * 0.0036464


def planned(*overrides):
    return {e.asset: e for e in resolve_request("toy", overrides).plan()}


def test_a_budget_that_buys_as_many_steps_shares_all_trainings(finished_project):
    before = finished_project.artifacts()
    overrides = [f"budget.mafs={TWO_STEPS}"]
    entries = planned(*overrides)
    assert {key for key, entry in entries.items() if entry.compute} == {"toy/budget"}
    run_experiment("toy", overrides)
    new = finished_project.artifacts() - before
    assert {name.partition("/")[0] for name in new} == {"budget"}
    own, full = json.loads(artifact(finished_project, "toy/budget").path(BUDGET).read_text())
    assert own["steps_per_stage"] == full["steps_per_stage"] == 2
    assert own["samples_per_stage"] == 18
    assert own["memory_multiplier"] == 1


def artifact(project, key):
    return project.home.store.open(*project.home.heads.read(key).artifacts[ONLY])


def test_another_budget_trains_again_and_the_plan_says_by_how_much(finished_project):
    entries = planned(f"budget.mafs={2 * TWO_STEPS}")
    assert entries["toy/trained_001"].reasons == ("budget.steps 2 → 4",)
    assert entries["toy/trained_001"].samples == 4 * 9


def test_a_cost_that_is_counted_otherwise_and_buys_the_same_changes_nothing(
    finished_project, monkeypatch
):
    def key(of_step):
        cost = Cost(of_step, 0, 0, 0, 0, 10**7)
        monkeypatch.setattr(budgets, "cost_of", lambda case, cache: cost)
        graph = finished_project.graph("toy", f"budget.mafs={TWO_STEPS}")
        from fomo_dagster.graph.run.plan import plan
        from fomo_dagster.graph.run.run_context import RunContext

        entries = plan(graph.of("toy"), RunContext(graph, finished_project.home))
        return {e.asset for e in entries if e.compute and e.asset != "toy/budget"}

    assert key(3_646_368) == key(3_650_000) == set()
    assert "toy/trained_001" in key(1_000_000)


def test_what_is_done_at_the_end_is_paid_for_by_the_steps():
    cost = MemoryAdjusted(
        flops_per_step=10**9, flops_beside_steps=100 * 10**9, peak_memory_bytes=1, multiplier=2.0
    )
    steps = cost.steps(2 * 10 * 1000, stages=10)  # 1000 GFLOPs a stage once memory is paid for
    assert steps == 900
    assert cost.gigaflops_per_step(steps) == pytest.approx(1000 / 900)


def test_a_budget_that_buys_no_step_says_what_one_takes():
    cost = MemoryAdjusted(10**9, 10 * 10**9, 1, 1.0)
    with pytest.raises(InputError, match=r"budget\.mafs is 5, .* 4 stages takes 44: raise it"):
        cost.steps(5, stages=4)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("budget={mafs: 1, steps: 2}", "exactly one of samples, steps, epochs, mafs"),
        ("budget.mafs=0", "budget.mafs"),
        ("backbone.pretraining.budget.mafs=1", "pretraining has none"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_when_it_is_read(project, override, message):
    with pytest.raises(InputError, match=message):
        project.load("toy", override)


def test_a_growing_stream_has_no_such_budget(project):
    stream = {"name": "toy", "growing": "../arriving"}
    project.write("toy", stream=stream, budget={"mafs": 1.0})
    with pytest.raises(InputError, match="a growing stream has no fixed number of them"):
        project.load()


def test_every_training_records_what_it_cost(finished):
    first, second = (finished.home.heads.read(f"toy/trained_00{n}").cost for n in (1, 2))
    assert first["flops"] == second["flops"] == 2 * 3_646_368
    assert first["samples"] == 18
    assert first["seconds"] > 0
    assert finished.home.heads.read("backbones/toy").cost["flops"] > 0


def test_every_evaluation_records_the_operations_of_what_it_encoded(finished):
    """All texts are its own: no other asset asked for them before."""
    cost = of_encoding(finished.load().experiment.backbone.architecture)
    evaluated = finished.home.heads.read("toy/evaluation_002").cost
    concepts = 4 + 2 + 3  # each with two images to test on
    assert evaluated["samples"] == 2 * concepts
    assert evaluated["flops"] == concepts * (2 * cost.flops_per_image + cost.flops_per_text)


def test_what_cannot_be_counted_is_said_once_and_stops_no_evaluation(tmp_path, monkeypatch, caplog):
    def refuse(architecture):
        raise AttributeError("a tower that fake tensors do not run")

    monkeypatch.setattr(operations, "of_encoding", refuse)
    for _ in range(2):
        assert encoding_flops({"embed_dim": "never built"}, tmp_path, images=3) == {}
    (said,) = caplog.messages
    assert said.endswith("could not be counted: a tower that fake tensors do not run")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells")
def test_the_peak_of_an_asset_is_that_of_its_artifact_that_took_most(finished):
    head = finished.home.heads.read("toy/evaluation_001")
    of_artifacts = [finished.home.store.open(*at).cost for at in head.artifacts.values()]
    assert len(of_artifacts) == 3
    for name, together in (("peak_process_memory_bytes", max), ("samples", sum)):
        assert head.cost[name] == together(cost[name] for cost in of_artifacts)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells")
def test_every_artifact_records_by_how_much_the_process_grew(finished):
    for key in ("shards/birds", "toy/evaluation_002", "toy/trained_001", "toy/scores"):
        assert finished.home.heads.read(key).cost["peak_process_memory_bytes"] >= 0, key
