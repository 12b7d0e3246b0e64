"""An experiment that validates never looks at the test splits it could, nor trains on what it
measures."""

import polars as pl
import pytest

from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import InputError
from fomo_dagster.graph.build.builder import build_graph
from fomo_dagster.graph.core.files import MANIFEST
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.indexes import index_of

VALIDATION = {"share": 0.25, "seed": 3}


@pytest.fixture
def validated(finished_project):
    finished_project.write("tuned", validation=VALIDATION)
    return finished_project


def test_every_stage_is_measured_on_training_samples_that_it_is_not_trained_on(validated):
    planned = {e.asset: set(e.compute) for e in resolve_request("tuned", []).plan() if e.compute}
    before = validated.artifacts()
    run_experiment("tuned", [])
    request = resolve_request("tuned", [])
    context = RunContext(request.graph, request.home)
    view, whole = index_of("birds_validation", context), index_of("birds", context)
    trained = pl.concat(
        pl.read_parquet(context.artifact(f"streams/toy_validation/chunk_{n:03d}").path(MANIFEST))
        for n in (1, 2, 3)
    ).filter(dataset="birds_validation")
    held_out = view.rows("test")
    assert held_out["concept"].value_counts().sort("concept").rows() == [
        ("crow", 1), ("robin", 1), ("swan", 1), ("wren", 1)
    ]  # fmt: skip
    training = set(whole.rows("train")["key"])
    assert set(trained["key"]) | set(held_out["key"]) == training
    assert not set(trained["key"]) & set(held_out["key"])
    # The images are the very ones, though none is stored again.
    for key, shard, offset, size in held_out.select("key", "shard", "offset", "size").rows():
        there = whole.rows("train").filter(key=key).select("shard", "offset", "size").row(0)
        assert view.read(shard, offset, size) == whole.read(*there)
    assert not any(a.startswith("shards/") for a in validated.artifacts() - before)
    evaluated = pl.read_parquet(
        context.artifact("tuned/evaluation_003", "birds_validation").path("metrics.parquet")
    )
    assert evaluated["samples"].max() == held_out.height
    concepts = validated.home.heads.read("shards/birds_validation").facts["concepts"]
    assert concepts == validated.home.heads.read("shards/birds").facts["concepts"]
    # What was planned is what was computed, θ₀ and its pool are shared, and nothing is left.
    assert {key for key in planned if not key.startswith("tuned/")} == {
        "shards/birds_validation", "shards/cats_validation", "shards/old_validation",
        "streams/toy_validation/order", "streams/toy_validation/chunk_001",
        "streams/toy_validation/chunk_002", "streams/toy_validation/chunk_003", "leaderboard",
    }  # fmt: skip
    assert all(entry.current for entry in resolve_request("tuned", []).plan())


@pytest.mark.slow
def test_a_plan_made_before_anything_is_there_is_what_is_then_computed(project):
    project.write("toy", validation=VALIDATION)
    planned = resolve_request("toy", []).plan()
    run_experiment("toy", [])
    made = {a.partition("/")[0] for a in project.artifacts()}
    assert {entry.kind for entry in planned} <= made | {"evaluation"}
    assert all(entry.current for entry in resolve_request("toy", []).plan())


def test_a_new_test_image_changes_nothing_and_a_new_training_image_does(validated):
    run_experiment("tuned", [])
    validated.add_image("birds", "test", "crow", 1001)
    assert {e.asset for e in resolve_request("tuned", []).plan() if e.compute} == {"shards/birds"}
    validated.add_image("birds", "train", "crow", 1002)
    computed = {e.asset for e in resolve_request("tuned", []).plan() if e.compute}
    assert {"shards/birds_validation", "tuned/trained_002", "tuned/trained_003"} <= computed


def test_another_holdout_needs_another_name_and_then_shares_the_rest(project):
    folds = [{"share": 0.25, "seed": 0}, {"share": 0.25, "seed": 1}]
    for name, validation in zip("ab", folds, strict=True):
        project.write(name, validation=validation)
    message = r"birds_validation differently \(seed 0 → 1\): .* another validation\.name"
    with pytest.raises(InputError, match=message):
        build_graph([project.load("a"), project.load("b")])
    project.write("b", validation={**folds[1], "name": "fold"})
    graph = build_graph([project.load("a"), project.load("b")])
    keys = {"shards/birds_validation", "shards/birds_fold", "streams/toy_validation/order"}
    assert keys | {"streams/toy_fold/chunk_001", "shards/birds"} <= graph.nodes.keys()
    project.write("b", validation={**folds[0], "name": "fold"})  # a name alone is no identity
    named = build_graph([project.load("a"), project.load("b")]).nodes
    assert named["shards/birds_fold"].declared == named["shards/birds_validation"].declared


@pytest.mark.parametrize("share", [0, 1])
def test_a_share_that_leaves_one_side_empty_is_refused(project, share):
    project.write("toy", validation={"share": share})
    with pytest.raises(InputError, match=r"validation\.share"):
        resolve_request("toy", [])


def test_a_swept_coefficient_of_merges_trains_each_stage_once(project):
    project.write(
        "tuned", validation=VALIDATION, method={"combination": "ft_merge"},
        sweep={"method.merge.weight": [0.2, 0.8]},
    )  # fmt: skip
    plan = resolve_request("tuned", []).plan()
    computed = {e.asset for e in plan if e.compute}
    trained = {f"tuned_weight_0_2/trained_{stage:03d}" for stage in (1, 2, 3)}
    assert {asset for asset in computed if "/trained_" in asset} == trained
    assert len([asset for asset in computed if "/deployed_" in asset]) == 2 * 3
