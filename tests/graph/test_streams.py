"""Orders as assets: what they hold, what depends on them, and that plans foresee them."""

import polars as pl
import pytest
import yaml

from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import InputError
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.nodes.order import ORDER, ORDER_PLOT
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.streams.orderings import dataset_incremental, random
from fomo_dagster.tables.results import results
from fomo_dagster.tables.views import query

ENTRIES = [
    "birds+++crow", "birds+++robin", "birds+++swan", "birds+++wren", "cats+++lion", "cats+++lynx",
]  # fmt: skip
DATED = {"birds": 2011, "cats": 2004}


def with_years(project):
    path = project.root / "datasets/toy.yaml"
    declared = yaml.safe_load(path.read_text())
    for name, year in DATED.items():
        declared[name]["year"] = year
    path.write_text(yaml.safe_dump(declared))


def stream_of(project, **stream):
    """Declare the toy's stream; the nodes of it and of what it needs."""
    project.write("toy", stream={"name": "toy", "datasets": ["birds", "cats"], **stream})
    graph = project.graph()
    return graph, [node for node in graph.of("toy") if node.kind in ("shards", "order", "chunk")]


def make(project, graph, nodes):
    context = RunContext(graph, project.home)
    return {node.key: materialise(node.key, context) for node in nodes}


def chunks_of(outcomes):
    return [
        ["+++".join(brought) for brought in outcome.head.facts["concepts"]]
        for key, outcome in outcomes.items()
        if "chunk" in key
    ]


ORDERS = {
    "as listed": ({"stages": 3}, ENTRIES, [2, 2, 2]),
    "reversed": ({"stages": 4, "reverse": True}, ENTRIES[::-1], [2, 2, 1, 1]),
    "random": ({"order": "random", "seed": 3, "stages": 1}, random(ENTRIES, 3), [6]),
    "random reversed": (
        {"order": "random", "stages": 2, "reverse": True}, random(ENTRIES, 0)[::-1], [3, 3]
    ),
    "by year": (
        {"order": "time_incremental", "positions": [2, 6]},
        random(ENTRIES[4:], 0) + random(ENTRIES[:4], 0), [1, 4, 1],
    ),
    "by year, backwards": (
        {"order": "time_incremental", "direction": "newest_first", "stages": 2},
        random(ENTRIES[:4], 0) + random(ENTRIES[4:], 0), [3, 3],
    ),
    "a stage a dataset": (
        {"order": "dataset_incremental"}, dataset_incremental(ENTRIES, 0), [4, 2]
    ),
    "a stage a dataset, reversed": (
        {"order": "dataset_incremental", "reverse": True, "seed": 2, "stages": 2},
        dataset_incremental(ENTRIES, 2)[::-1], [2, 4],
    ),
    "some concepts, a stage a dataset": (
        {"datasets": None, "concepts": ["cats+++lynx", "birds+++wren", "birds+++crow"],
         "order": "dataset_incremental"},
        ["cats+++lynx", *random(["birds+++wren", "birds+++crow"], 0)], [1, 2],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ORDERS)
def test_an_order_that_follows_from_names_is_foreseen_and_cut(finished_project, case):
    stream, expected, lengths = ORDERS[case]
    project = finished_project
    with_years(project)
    graph, nodes = stream_of(project, **stream)
    planned = {e.asset: e for e in plan(nodes, RunContext(graph, project.home))}
    assert not any("is computed first" in reason for e in planned.values() for reason in e.reasons)
    before = project.artifacts()
    outcomes = make(project, graph, nodes)
    order = outcomes["streams/toy/order"]
    rows = pl.read_parquet(order.artifacts[ONLY].path(ORDER))
    assert rows["position"].to_list() == list(range(1, len(expected) + 1))
    assert (rows["dataset"] + "+++" + rows["concept"]).to_list() == expected
    computed = {
        key: tuple(n for n, a in outcome.artifacts.items() if f"{a.kind}/{a.digest}" not in before)
        for key, outcome in outcomes.items()
    }
    assert computed == {key: entry.compute for key, entry in planned.items()}
    chunks = chunks_of(outcomes)
    assert [entry for chunk in chunks for entry in chunk] == expected
    assert [len(chunk) for chunk in chunks] == lengths
    assert not any(e.compute for e in plan(nodes, RunContext(graph, project.home)))
    node, context = graph.nodes["streams/toy/order"], RunContext(graph, project.home)
    predicted = node.predict(node.recipes(node.input_facts(context)), context)
    assert predicted.data_version == order.head.data_version


def test_chunks_by_samples_follow_the_number_of_training_images(finished_project):
    project = finished_project
    for number in range(10):
        project.add_image("birds", "train", "crow", 3000 + number)
    graph, nodes = stream_of(project, stages=2, cut="samples")
    chunks = chunks_of(make(project, graph, nodes))
    assert chunks == [ENTRIES[:2], ENTRIES[2:]]  # 18 and 16 of 34 images
    before = project.artifacts()
    for number in range(40):
        project.add_image("birds", "train", "crow", 4000 + number)
    assert chunks_of(make(project, graph, nodes)) == [ENTRIES[:1], ENTRIES[1:]]
    assert not any(new.startswith("order/") for new in project.artifacts() - before)


def test_the_same_order_from_elsewhere_leaves_the_chunks(finished_project):
    project = finished_project
    graph, nodes = stream_of(project, order="random", seed=5, stages=3)
    make(project, graph, nodes)
    before = project.artifacts()
    listed = {"datasets": None, "concepts": random(ENTRIES, 5), "stages": 3}
    graph, nodes = stream_of(project, **listed)
    planned = {
        e.asset: e.compute for e in plan(nodes, RunContext(graph, project.home)) if e.compute
    }
    assert planned == {"streams/toy/order": (ONLY,)}
    make(project, graph, nodes)
    assert {new.partition("/")[0] for new in project.artifacts() - before} == {"order"}


def test_two_datasets_of_the_same_images_have_a_chunk_each(finished_project):
    path = finished_project.root / "datasets/toy.yaml"
    declared = yaml.safe_load(path.read_text())
    declared["cats"] = {**declared["birds"], "prompt": "ein Bild: {}"}
    path.write_text(yaml.safe_dump(declared))
    graph, nodes = stream_of(finished_project, order="dataset_incremental")
    make(finished_project, graph, nodes)
    asked = "SELECT DISTINCT stage, dataset FROM chunks WHERE stage < 3 ORDER BY ALL"
    assert query(finished_project.home.root, asked).rows() == [(1, "birds"), (2, "cats")]


def test_a_dataset_that_joins_is_one_stage_more_and_touches_no_other(finished_project):
    project = finished_project
    stream = {"order": "dataset_incremental"}
    graph, nodes = stream_of(project, **stream)
    make(project, graph, nodes)
    before = {node.key: graph.code_versions[node.key] for node in nodes}
    project.write("toy", stream={"name": "toy", "datasets": ["birds", "cats", "old"], **stream},
                  evaluation={"held_out": []})  # fmt: skip
    graph = project.graph()
    nodes = [node for node in graph.of("toy") if node.kind in ("shards", "order", "chunk")]
    changed = {node.key for node in nodes if graph.code_versions[node.key] != before.get(node.key)}
    assert changed == {"streams/toy/order", "streams/toy/chunk_003"}


def test_a_stream_can_be_asked_for_with_the_stage_of_each_concept(finished_project):
    project = finished_project
    with_years(project)
    graph, nodes = stream_of(project, order="time_incremental", interleaved=True, stages=3)
    make(project, graph, nodes)
    rows = query(project.home.root, "SELECT * FROM streams ORDER BY position")
    ordered = random(ENTRIES[4:], 0) + random(ENTRIES[:4], 0)
    assert rows.rows() == [
        ("toy", n + 1, n // 2 + 1, *entry.split("+++"), 2004.0 if n < 2 else 2011.0)
        for n, entry in enumerate(ordered)
    ]
    picture = project.home.heads.read("streams/toy/order").artifacts[ONLY]
    artifact = project.home.store.open(*picture)
    assert artifact.record(ORDER_PLOT).read_bytes().startswith(b"\x89PNG")


def test_a_dataset_without_a_year_has_no_place_in_time(project):
    with pytest.raises(InputError, match="declare `year` for birds, cats"):
        stream_of(project, order="time_incremental", stages=2)


def test_stages_that_contradict_a_stage_a_dataset_are_refused(project):
    with pytest.raises(InputError, match=r"stream.stages is 3.*of 2 datasets has 2"):
        stream_of(project, order="dataset_incremental", stages=3)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ({}, "exactly one of stages, positions"),
        ({"stages": 2, "positions": [3]}, "exactly one of stages, positions"),
        ({"positions": [3], "cut": "samples"}, "cut goes with stages"),
        ({"order": "dataset_incremental", "positions": [3]}, "leave out cut and positions"),
        ({"stages": 2, "interleaved": True}, "interleaved goes with order: time_incremental"),
        ({"positions": []}, "1 to 998"),
        (
            {"stages": 2, "order": "performance", "direction": "rare_first"},
            "order: performance is easy_first or hard_first, not rare_first",
        ),
        (
            {"stages": 2, "order": "similarity", "direction": "rare_first"},
            "direction goes with .*not with similarity: use reverse, which reverses any order",
        ),
        (
            {"stages": 2, "order": "frequency", "direction": "rare_first", "reverse": True},
            "leave out reverse",
        ),
    ],
)
def test_a_stream_that_contradicts_itself_is_refused(project, stream, message):
    with pytest.raises(InputError, match=message):
        stream_of(project, **stream)


def test_a_stream_of_no_stage_evaluates_the_backbone_alone(finished_project):
    before = finished_project.artifacts()
    stream = {"datasets": ["birds", "cats"], "stages": 0}
    finished_project.write("zero", stream=stream)
    run_experiment("zero", [])
    # θ₀ was evaluated by `toy` already, on the same datasets.
    new = {artifact.partition("/")[0] for artifact in finished_project.artifacts() - before}
    assert new == {"scores", "leaderboard"}
    stages = results(finished_project.home.root, ["zero", "toy"]).stages
    zero, toy = (stages.filter(experiment=name, stage=0) for name in ("zero", "toy"))
    columns = ["knowledge_accumulation", "zero_shot_retention", "geometric_mean"]
    assert zero.select(columns).equals(toy.select(columns))
    assert stages.filter(experiment="zero").height == 1


def test_experiments_that_share_a_stream_s_name_alone_are_told_so(project, caplog):
    project.write("other", stream={"name": "toy", "datasets": ["birds", "cats"], "stages": 2})
    resolve_request("toy", ["optimiser.learning_rate=1"])
    assert not caplog.text
    nodes = resolve_request("toy", []).graph.nodes
    assert "other/trained_001" not in nodes
    assert "toy/trained_003" in nodes
    assert "streams/toy/chunk_001 differently (stages 3 → 2)" in caplog.text
    assert "another stream.name" in caplog.text
