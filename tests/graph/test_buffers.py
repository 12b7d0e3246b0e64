"""What a stage keeps of earlier chunks: from its declaration to the pool that is drawn from."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest

from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.data.buffer import select
from fomo_dagster.data.pixel_rules import NEWEST
from fomo_dagster.data.representatives import k_centre
from fomo_dagster.errors import InputError
from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.graph.core.facts import ONLY, Facts
from fomo_dagster.graph.core.files import MANIFEST
from fomo_dagster.graph.nodes.losses import buffer_losses
from fomo_dagster.graph.nodes.trained import TrainedNode
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.checkpoints import WEIGHTS, load_weights
from fomo_dagster.graph.work.indexes import index_of
from fomo_dagster.graph.work.stage_pools import StagePools, open_pools
from fomo_dagster.models.operations import of_encoding
from fomo_dagster.parquet import read_parquet
from fomo_dagster.tables.views import query
from tests.conftest import EXPERIMENT


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
        buffer_features=node.buffer_features, buffer_losses=pl.DataFrame, seed=node.seed,
        execution=node.execution, context=context, pixels=NEWEST,
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


def losses_of(project: Any, name: str, stage: int, weights: str) -> dict[tuple[str, str], float]:
    """Of all that the stages before one brought, by an asset's weights: one sample at a time, in
    double precision, among the captions of its stage."""
    graph = project.graph(name)
    context, node = RunContext(graph, project.home), graph.nodes[f"{name}/trained_{stage:03d}"]
    model = load_weights(node.backbone, context.artifact(weights).path(WEIGHTS))
    encoder = Encoder.of(model, "fp32", node.execution, NEWEST)
    scale = model.module.logit_scale.detach().double().exp().item()
    found = {}
    for key in node.chunk_keys[:-1]:
        chunk = read_parquet(context.artifact(key).path(MANIFEST))
        texts = sorted({text for captions in chunk["captions"] for text in captions})
        of_texts = encoder.texts(texts).double()
        for dataset, sample, captions in chunk.select("dataset", "key", "captions").rows():
            index = index_of(dataset, context)
            image = encoder.images(dataset, index.rows("train").filter(key=sample), index)[0]
            odds = [math.exp(scale * float(image.double() @ text)) for text in of_texts]
            own = sum(odds[texts.index(caption)] for caption in captions)
            found[dataset, sample] = -math.log(own / sum(odds))
    return found


@pytest.mark.slow
def test_the_hardest_and_the_most_forgotten_are_kept_and_their_cost_counts(
    finished_project: Any,
) -> None:
    project = finished_project
    home = project.home
    project.write("hard", buffer={"selection": "hardest", "capacity": 6})
    planned = [entry.asset for entry in resolve_request("hard", []).plan() if entry.compute]
    assert {"hard/losses_002", "hard/losses_003", "hard/trained_002"} <= set(planned)
    run_experiment("hard", [])
    assert all(entry.current for entry in resolve_request("hard", []).plan())
    computed = losses_of(project, "hard", 3, "hard/trained_002")
    keys = [f"hard/losses_{stage:03d}" for stage in (2, 3)]
    context = RunContext(project.graph("hard"), home)
    stored = buffer_losses(keys, since=False, context=context)
    assert dict(zip(stored.select("dataset", "key").rows(), stored["loss"], strict=True)) == (
        pytest.approx(computed, abs=1e-4)
    )
    chunks = [
        read_parquet(context.artifact(key).path(MANIFEST))
        for key in project.graph("hard").nodes["hard/trained_003"].chunk_keys[:-1]
    ]

    def kept(losses: pl.DataFrame, policy: str) -> set[tuple[str, str]]:
        rows = select(chunks, 4, policy, 0, losses=lambda dataset: losses.filter(dataset=dataset))
        return set(rows.select("dataset", "key").rows())

    concepts = pl.concat(chunks).join(stored, on=["dataset", "key"])
    highest = concepts.sort("loss").group_by("dataset", "concept").last()
    assert kept(stored, "hardest") <= set(highest.select("dataset", "key").rows())
    flops = query(home.root, "SELECT (cost->>'flops')::BIGINT FROM artifacts WHERE makes_weights "
                  "AND asset = 'hard/losses_003'").item()  # fmt: skip
    cost = of_encoding(EXPERIMENT["backbone"]["architecture"])  # type: ignore[index]
    texts = sum(len({t for c in chunk["captions"] for t in c}) for chunk in chunks)
    images = sum(chunk.height for chunk in chunks)
    assert flops == images * cost.flops_per_image + texts * cost.flops_per_text

    before = losses_of(project, "hard", 2, "hard/trained_001")
    since = buffer_losses(keys, since=True, context=context)
    grown = {
        sample: loss - before.get(sample, loss) for sample, loss in computed.items()
    }  # of what stage 2 brought, nothing is forgotten yet
    assert dict(zip(since.select("dataset", "key").rows(), since["loss"], strict=True)) == (
        pytest.approx(grown, abs=2e-4)
    )
    project.write("forgot", buffer={"selection": "most_forgotten", "capacity": 6})
    run_experiment("forgot", [])
    (recipe,) = home.heads.read("forgot/trained_003").recipes.values()
    assert recipe["inputs"]["losses"] == [
        home.heads.read(f"forgot/losses_{stage:03d}").data_version for stage in (2, 3)
    ]


@pytest.mark.parametrize(("selection", "asked"), [("hardest", {3}), ("most_forgotten", {2, 3})])
def test_losses_are_there_where_a_buffer_is_chosen_by_them(
    project: Any, selection: str, asked: set[int]
) -> None:
    late = "mixture={over: stages, points: [{at: 1, update: 1}, {at: 3, update: 0.5, buffer: 0.5}]}"
    chosen = f"buffer={{selection: {selection}, capacity: 5}}"
    nodes = project.graph("toy", late, chosen).nodes
    assert {node.stage for node in nodes.values() if node.kind == "losses"} == asked
    stages = [nodes[f"toy/trained_{stage:03d}"] for stage in (1, 2, 3)]
    assert [[key for key in one.inputs if "losses" in key] for one in stages] == [
        [], [], [f"toy/losses_{stage:03d}" for stage in sorted(asked)]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("selection", "method", "said"),
    [
        ("hardest", "{preserve: {name: der}}", "der needs to know what later stages keep"),
        ("most_forgotten", "{start_from: initial}", "nothing tells what was forgotten since"),
    ],
)
def test_selections_by_losses_are_refused_where_they_mean_nothing(
    project: Any, selection: str, method: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        project.graph("toy", f"buffer={{selection: {selection}, capacity: 5}}", f"method={method}")
    with pytest.raises(InputError, match="without a capacity everything is kept"):
        project.graph("toy", f"buffer={{selection: {selection}}}")
