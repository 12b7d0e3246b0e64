"""Orders that measure something first: their definitions, and what plans say before and after."""

import shutil
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import yaml

from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import InputError
from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.nodes.order import ORDER
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.checkpoints import WEIGHTS, load_weights
from fomo_dagster.home import Home
from fomo_dagster.models.operations import of_encoding
from fomo_dagster.streams.orderings import random
from fomo_dagster.tables.views import query

pytestmark = pytest.mark.slow

ENTRIES = [
    "birds+++crow", "birds+++robin", "birds+++swan", "birds+++wren", "cats+++lion", "cats+++lynx",
]  # fmt: skip
AWAITED = ("streams/toy/order is computed first",)
# Concepts of a pool, whose prompts are its captions: (name, images).
WEB = [
    ("a crow and a Wren", 2), ("crow", 3), ("scarecrow", 9), ("two swans", 5), ("sky", 1),
    ("lion", 2), ("lynx", 1), ("one robin", 1),
]  # fmt: skip
NEEDED = ("shards", "pool", "backbone", "probe", "order", "chunk")
COUNTS = {"crow": 5, "wren": 2, "lion": 2, "lynx": 1, "robin": 1, "swan": 0}


def measured(project, order, **changes):
    stream = {"name": "toy", "datasets": ["birds", "cats"], "stages": 3, "order": order}
    project.write("toy", **{"stream": stream, **changes})


def planned():
    return {entry.asset: entry for entry in resolve_request("toy", []).plan()}


def order_of(project):
    kind, digest = project.home.heads.read("streams/toy/order").artifacts[ONLY]
    return pl.read_parquet(project.home.store.open(kind, digest).path(ORDER))


def entries_of(order):
    return (order["dataset"] + "+++" + order["concept"]).to_list()


def make(project, *kinds, direction=None):
    """The toy's nodes of these kinds, materialised in turn in the home of the environment."""
    settings = [f"stream.direction={direction}"] if direction else []
    graph = project.graph("toy", *settings)
    context = RunContext(graph, Home.from_environment())
    nodes = [node for node in graph.of("toy") if node.kind in kinds]
    return nodes, {node.key: materialise(node.key, context) for node in nodes}


def test_performance_is_easy_to_hard_and_computes_no_evaluation_twice(finished_project):
    measured(finished_project, "performance")
    before = finished_project.artifacts()
    first = planned()
    assert first["streams/toy/probe"].status == "hit"  # stage 0 was evaluated alike
    assert first["streams/toy/order"].compute == (ONLY,)
    assert first["streams/toy/order"].reasons != AWAITED
    assert first["toy/evaluation_000"].status == "hit"
    waiting = {key for key, entry in first.items() if entry.reasons == AWAITED}
    assert {"streams/toy/chunk_001", "toy/trained_003", "toy/evaluation_001"} <= waiting
    assert not any(key.startswith(("shards", "backbones")) for key in waiting)

    run_experiment("toy", [])
    scores = query(
        finished_project.home.root,
        "SELECT dataset || '+++' || concept, value FROM concept_scores "
        "WHERE experiment = 'toy' AND stage = 0 AND role = 'adaptation'",
    )
    accuracy = dict(scores.rows())
    order = order_of(finished_project)
    shuffled = random(ENTRIES, 0)
    expected = sorted(shuffled, key=lambda entry: -accuracy[entry])  # stable
    assert entries_of(order) == expected
    assert order["figure"].to_list() == [accuracy[entry] for entry in expected]
    new = [name.partition("/")[0] for name in finished_project.artifacts() - before]
    assert new.count("evaluation") == 9  # three datasets after each of three stages
    assert all(entry.current for entry in planned().values())
    assert resolve_request("toy", ["stream.reverse=true"]).plan()  # another order, not yet known
    turned = {e.asset: e for e in resolve_request("toy", ["stream.reverse=true"]).plan()}
    assert turned["streams/toy/chunk_001"].reasons == AWAITED


def test_hard_first_is_by_rising_accuracy_and_what_has_no_test_samples_stays_last(
    finished_project,
):
    project = finished_project
    shutil.rmtree(project.root / "images/birds/test/wren")
    measured(project, "performance")
    figures = {}
    for direction in ("easy_first", "hard_first"):
        make(project, *NEEDED, direction=direction)
        order = order_of(project)
        assert entries_of(order)[-1] == "birds+++wren"
        figures[direction] = order["figure"].to_list()
        assert figures[direction].pop() is None
    assert figures["hard_first"] == sorted(figures["easy_first"])
    assert figures["easy_first"] == figures["hard_first"][::-1]
    assert len(set(figures["easy_first"])) > 1


def test_what_waits_for_an_order_is_found_where_it_was_computed_before(finished_project):
    """The same images evaluated under another setting: other recipes of the same accuracies."""
    measured(finished_project, "performance")
    make(finished_project, *NEEDED)
    before = finished_project.artifacts()
    # The mean over one prompt given twice is that prompt's.
    measured(finished_project, "performance", evaluation={"prompts": ["a photo of a {}"] * 2})
    waiting = planned()["streams/toy/chunk_001"]
    assert waiting.compute == (ONLY,)
    assert waiting.reasons == AWAITED
    make(finished_project, *NEEDED)
    new = {name.partition("/")[0] for name in finished_project.artifacts() - before}
    assert new == {"evaluation", "text_embeddings", "order"}


def test_accuracies_that_decide_an_order_are_of_whole_test_splits(project):
    measured(project, "performance", evaluation={"subset": 0.1})
    nodes = project.graph().nodes
    assert nodes["streams/toy/probe"].declared["birds"]["subset"] == 1.0
    assert nodes["toy/evaluation_000"].declared["birds"]["subset"] == 0.1


@pytest.fixture
def counted(finished_project):
    """A project whose stream goes by the captions of a pool that nothing is trained on."""
    project = finished_project
    for concept, images in WEB:
        for number in range(images):
            project.add_image("web", "train", concept, 5000 + 10 * number + len(concept))
    path = project.root / "datasets/toy.yaml"
    declared = yaml.safe_load(path.read_text())
    declared["web"] = {"source": {"type": "folder", "path": "../images/web", "test_share": 0.0}}
    path.write_text(yaml.safe_dump(declared))
    measured(
        project, "frequency", pretraining_pool={"name": "web", "datasets": ["web"]},
        mixture={"update": 0.5, "buffer": 0.5, "pretraining": 0},
    )  # fmt: skip
    return project


def test_frequency_goes_from_rare_to_frequent_as_the_released_stream_does(counted):
    shuffled = random(ENTRIES, 0)
    for direction, sign in ((None, 1), ("rare_first", 1), ("frequent_first", -1)):
        make(counted, *NEEDED, direction=direction)
        order = order_of(counted)
        expected = sorted(shuffled, key=lambda entry: sign * COUNTS[entry.split("+++")[1]])
        assert entries_of(order) == expected
        assert order["figure"].to_list() == [COUNTS[entry.split("+++")[1]] for entry in expected]


def test_an_order_that_comes_out_the_same_stops_there(counted):
    nodes, _ = make(counted, *NEEDED)
    before = counted.artifacts()
    counted.add_image("web", "train", "sky", 6000)
    foreseen = {e.asset: e for e in plan(nodes, RunContext(counted.graph(), counted.home))}
    assert foreseen["streams/toy/order"].reasons == (
        "the pretraining pool brings other captions or samples",
    )
    assert foreseen["streams/toy/chunk_002"].reasons == AWAITED
    make(counted, *NEEDED)
    assert {name.partition("/")[0] for name in counted.artifacts() - before} == {
        "shards", "pool", "order"
    }  # fmt: skip
    assert not any(e.compute for e in plan(nodes, RunContext(counted.graph(), counted.home)))


def test_frequency_without_a_pool_is_refused(project):
    measured(
        project, "frequency", mixture={"update": 1.0, "buffer": 0, "pretraining": 0},
        backbone={"name": "b", "architecture": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"},
    )  # fmt: skip
    with pytest.raises(InputError, match="declare pretraining_pool"):
        project.graph()


@pytest.mark.parametrize("reverse", [False, True])
def test_similarity_is_the_greedy_path_through_the_prompts(finished_project, reverse):
    stream = {"name": "toy", "datasets": ["birds", "cats"], "stages": 2, "order": "similarity"}
    finished_project.write("toy", stream={**stream, "seed": 4, "starts": 2, "reverse": reverse})
    before = finished_project.artifacts()
    make(finished_project, *NEEDED)
    new = finished_project.artifacts() - before
    assert "text_embeddings" not in {name.partition("/")[0] for name in new}  # the evaluations'

    context = RunContext(finished_project.graph(), finished_project.home)
    node = context.graph.nodes["streams/toy/order"]
    model = load_weights(node.backbone, context.artifact("backbones/toy").path(WEIGHTS))
    texts = [f"a photo of a {entry.split('+++')[1]}" for entry in ENTRIES]
    encoder = Encoder(model=model, batch_size=8, precision="fp32", device="cpu")
    rows = encoder.texts(texts).numpy()
    embedded = dict(zip(ENTRIES, rows, strict=True))

    def path_from(start):
        path = [start]
        while left := [entry for entry in ENTRIES if entry not in path]:
            path.append(max(left, key=lambda entry: embedded[entry] @ embedded[path[-1]]))
        return path

    def steps(path):
        return [float(embedded[a] @ embedded[b]) for a, b in pairwise(path)]

    expected = max(map(path_from, random(ENTRIES, 4)[:2]), key=lambda path: sum(steps(path)))
    expected = expected[::-1] if reverse else expected
    order = order_of(finished_project)
    assert entries_of(order) == expected
    assert order["figure"][0] is None
    assert np.allclose(order["figure"][1:].to_numpy(), steps(expected), atol=1e-5)


def test_an_order_by_similarity_records_the_operations_of_texts_that_were_not_there(project):
    measured(project, "similarity")
    make(project, *NEEDED)
    backbone = project.load().experiment.backbone
    cost = project.home.heads.read("streams/toy/order").cost
    assert cost["flops"] == len(ENTRIES) * of_encoding(backbone.architecture).flops_per_text


def test_a_machine_that_shares_the_store_knows_the_order(project, tmp_path, monkeypatch):
    monkeypatch.setenv("FOMO_STORE", f"file://{tmp_path / 'shared'}")
    measured(project, "similarity")
    nodes, _ = make(project, *NEEDED)
    monkeypatch.setenv("FOMO_HOME", str(tmp_path / "other_machine"))
    there = RunContext(project.graph(), Home.from_environment())
    assert not any(entry.compute for entry in plan(nodes, there))
    fetched = {path.name for path in (tmp_path / "other_machine/store").glob("[!.]*")}
    assert fetched == {"order"}


def test_experiments_that_measure_one_stream_differently_are_named(project):
    measured(project, "performance")
    project.write(
        "other", stream={"name": "toy", "datasets": ["birds", "cats"], "stages": 3,
                         "order": "performance"}, evaluation={"prompts": "simple"},
    )  # fmt: skip
    from fomo_dagster.experiment.experiment_sets import load_all
    from fomo_dagster.graph.build.builder import build_graph

    with pytest.raises(InputError, match=r"declare streams/toy/probe differently"):
        build_graph(load_all(project.root).experiments)


@pytest.mark.parametrize(
    ("cut", "message"),
    [({"stages": 7}, "stages is 7, .*from 1 to 6"), ({"positions": [2, 7]}, "from 2 to at most 6")],
)
def test_what_cannot_be_cut_is_refused_before_anything_is_measured(project, cut, message):
    project.write("toy", stream={"datasets": ["birds", "cats"], "order": "performance", **cut})
    with pytest.raises(InputError, match=message):
        planned()
