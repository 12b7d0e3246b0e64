"""Pretraining pools with weights: what they identify, and that their shares reach the training."""

import polars as pl
import pytest

from fomo_dagster.cli.planning import undertake
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import InputError
from fomo_dagster.graph.opened_pools import pretraining_pool
from fomo_dagster.graph.workshop import Workshop


def weighted(**weights):
    return {"name": "weighted", "datasets": weights}


def drawn(project, count):
    """The first captions of the pool `weighted`, as stage 1 draws them."""
    undertaking = undertake("toy", [])
    pool = pretraining_pool("pools/weighted", Workshop(undertaking.graph, project.home))
    return [pool.sample(0, 1, position).captions[0] for position in range(count)]


def test_each_dataset_of_a_weighted_pool_has_its_share_and_repeats_nothing(finished_project):
    finished_project.write("toy", pretraining_pool=weighted(old=1, cats=2))
    run_experiment("toy", [])
    captions = drawn(finished_project, 24)
    cats = [text for text in captions if text.endswith(("lion", "lynx"))]
    assert len(cats) == 16  # two thirds, and each of the 8 images twice
    assert cats[:8].count("a photo of a lion") == cats[8:].count("a photo of a lion") == 4
    steps = pl.read_parquet(
        next((finished_project.home.root / "tables/training_steps/toy").rglob("*.parquet"))
    )
    assert (steps["pretraining_samples"] > 0).all()


def test_weights_of_the_same_proportions_are_the_same_pool(finished_project):
    finished_project.write("toy", pretraining_pool=weighted(old=1, cats=2))
    run_experiment("toy", [])
    finished_project.write("toy", pretraining_pool=weighted(cats=50.0, old=25))
    assert all(entry.current for entry in undertake("toy", []).plan())
    finished_project.write("toy", pretraining_pool=weighted(cats=50.0, old=26))
    planned = {e.asset: e for e in undertake("toy", []).plan() if e.compute}
    assert {"pools/weighted", "toy/trained_001"} <= planned.keys()
    assert not any(asset.startswith("shards/") for asset in planned)
    assert "weights.old 1 → 13" in planned["pools/weighted"].reasons


def test_one_dataset_with_a_weight_is_the_pool_of_it_alone(finished_project):
    def address(datasets):
        pool = {"name": "weighted", "datasets": datasets}
        finished_project.write("toy", pretraining_pool=pool)
        undertaking = undertake("toy", [])
        facts = Workshop(undertaking.graph, finished_project.home).facts_for(
            undertaking.graph.nodes["pools/weighted"]
        )
        return undertaking.graph.nodes["pools/weighted"].recipes(facts)["only"].digest

    assert address({"old": 0.3}) == address(["old"])
    assert address({"old": 0.5, "cats": 0.5}) != address(["old", "cats"])


@pytest.mark.parametrize("weight", [0, -1])
def test_a_weight_that_draws_nothing_is_refused(project, weight):
    project.write("toy", pretraining_pool=weighted(old=1, cats=weight))
    with pytest.raises(InputError, match=rf"weight of 'cats' is {weight} and must be above 0"):
        undertake("toy", [])
