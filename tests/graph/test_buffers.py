"""What a stage keeps of earlier chunks: from its declaration to the pool that is drawn from."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.data.buffer import select
from fomo_dagster.data.pixel_rules import NEWEST
from fomo_dagster.data.representatives import k_centre
from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.graph.core.facts import ONLY, Facts
from fomo_dagster.graph.nodes.trained import TrainedNode
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.checkpoints import WEIGHTS, load_weights
from fomo_dagster.graph.work.indexes import index_of
from fomo_dagster.graph.work.stage_pools import StagePools, open_pools


def digest(project: Any, stage: int, *overrides: str) -> str:
    node = project.graph("toy", *overrides).nodes[f"toy/trained_{stage:03d}"]
    recipes = node.recipes({key: Facts(f"version of {key}") for key in node.inputs})
    return str(recipes[ONLY].digest)


def opened(project: Any, stage: int, kinds: tuple[str, ...], **buffer: Any) -> StagePools:
    """The pools of a stage of the toy, after what its buffer needs was made."""
    project.write("toy", buffer=buffer)
    graph = project.graph()
    context = RunContext(graph, project.home)
    for node in graph.of("toy"):
        if node.kind in kinds:
            materialise(node.key, context)
    node = graph.nodes[f"toy/trained_{stage:03d}"]
    assert isinstance(node, TrainedNode)
    return open_pools(
        node.chunk_keys[-1], node.chunk_keys[:-1], None, buffer=node.buffer,
        buffer_features=node.buffer_features, seed=node.seed, execution=node.execution,
        context=context, pixels=NEWEST,
    )  # fmt: skip


def test_no_capacity_in_mib_is_no_part_of_an_address_and_one_is(project: Any) -> None:
    for stage in (1, 2):
        assert digest(project, stage, "buffer.capacity_mib=null") == digest(project, stage)
    some = {digest(project, 2, f"buffer.capacity_mib={mib}") for mib in (1, 2)}
    assert len(some | {digest(project, 2)}) == 3


def test_a_buffer_in_mib_holds_the_images_whose_files_fit(project: Any) -> None:
    kinds = ("shards", "order", "chunk")
    five = opened(project, 3, kinds, capacity=5).kept
    files = [
        project.root / "images" / dataset / "train" / key
        for dataset, key in five.select("dataset", "key").rows()
    ]
    size = sum(file.stat().st_size for file in files)
    kept = opened(project, 3, kinds, capacity_mib=size / 2**20)
    assert kept.kept.equals(five)
    assert kept.pools["buffer"].size == 5
    fewer = opened(project, 3, kinds, capacity_mib=(size - 1) / 2**20)
    assert fewer.kept.equals(select(fewer.earlier, 4, "class_balanced", seed=0))
    both = opened(project, 3, kinds, capacity=2, capacity_mib=size / 2**20).kept
    assert both.equals(select(fewer.earlier, 2, "class_balanced", seed=0))


HERDING = "buffer={selection: herding, capacity: 5}"
FEATURES = [f"features/toy/{dataset}/train" for dataset in ("birds", "cats")]


def test_features_are_there_only_where_a_buffer_is_chosen_by_them(project: Any) -> None:
    def features(*overrides: str) -> dict[str, set[str]]:
        nodes = project.graph("toy", *overrides).nodes
        there = {key for key in nodes if key.startswith("features/")}
        return {
            key: set(node.inputs) & there
            for key, node in nodes.items()
            if key in there or node.kind == "trained"
        }

    stages = [f"toy/trained_{stage:03d}" for stage in (1, 2, 3)]
    assert features("buffer.capacity=5") == {key: set() for key in stages}
    asked = features(HERDING)
    assert set(asked) == {*stages, *FEATURES}
    assert [asked[stage] for stage in stages] == [set(), set(FEATURES), set(FEATURES)]
    der = features(HERDING, "method={preserve: {name: der}}")
    assert der[stages[0]] == set(FEATURES)  # what it leaves is of what is kept next
    unmixed = "mixture={update: 0.5, buffer: 0, pretraining: 0.5}"
    assert features(HERDING, unmixed) == {key: set() for key in stages}
    kept = features(HERDING, "near_duplicates.deduplicate=true")
    assert kept[stages[1]] == set(FEATURES)


def test_a_buffer_by_features_is_a_function_of_the_past_and_theta_0(
    project: Any,
) -> None:
    node = project.graph("toy", HERDING).nodes["toy/trained_003"]
    facts = {key: Facts(f"version of {key}") for key in node.inputs}
    inputs = node.recipes(facts)[ONLY].inputs
    assert inputs["chosen_by"] == "version of backbones/toy"
    # Features of samples that a later chunk brings are none of its business.
    other = {
        key: Facts("another" if key in FEATURES else of.data_version) for key, of in facts.items()
    }
    assert node.recipes(other) == node.recipes(facts)
    addresses = {
        digest(project, 2, f"buffer={{selection: {selection}, capacity: {capacity}}}")
        for selection in ("class_balanced", "herding", "k_centre")
        for capacity in (5, 6)
    }
    assert len(addresses) == 6


@pytest.mark.slow
def test_what_is_kept_stands_for_its_concept_by_the_features_of_the_first_weights(
    project: Any,
) -> None:
    kinds = ("shards", "order", "chunk", "pool", "backbone", "features")
    pools = opened(project, 3, kinds, capacity=6, selection="k_centre")
    graph = project.graph()
    context = RunContext(graph, project.home)
    model = load_weights(
        graph.nodes["toy/trained_003"].backbone,
        context.artifact("backbones/toy").path(WEIGHTS),
    )
    encoder = Encoder.of(model, "fp32", graph.nodes["toy/trained_003"].execution, NEWEST)
    past = pl.concat(pools.earlier)
    expected = set()
    for (dataset, _), rows in past.group_by("dataset", "concept", maintain_order=True):
        index = index_of(dataset, context)
        located = rows.select("key").join(index.rows("train"), on="key", maintain_order="left")
        features = encoder.images(dataset, located, index).numpy()
        expected |= {(dataset, rows["key"][place]) for place in k_centre(features, 2)}
    kept = set(pools.kept.select("dataset", "key").rows())
    assert len(kept) == 6
    assert kept <= expected
    assert {dataset for dataset, _ in kept} <= {"birds", "cats"}


@pytest.mark.slow
@pytest.mark.usefixtures("uncounted")
def test_a_run_computes_features_once_and_plans_say_so(finished_project: Any) -> None:
    project = finished_project
    buffer = {"selection": "herding", "capacity": 5}
    project.write("herded", buffer=buffer)
    planned = {entry.asset for entry in resolve_request("herded", []).plan() if entry.compute}
    assert planned >= set(FEATURES)
    run_experiment("herded", [])
    assert all(entry.current for entry in resolve_request("herded", []).plan())
    project.write("centred", buffer={**buffer, "selection": "k_centre"})
    planned = {entry.asset for entry in resolve_request("centred", []).plan() if entry.compute}
    assert not planned & set(FEATURES)
    assert planned >= {f"centred/trained_{stage:03d}" for stage in (2, 3)}
