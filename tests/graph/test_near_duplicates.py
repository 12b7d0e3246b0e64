"""Near duplicates as assets: what is found, what depends on it, and what is left out."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
from PIL import Image
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.errors import InputError
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.core.files import MANIFEST
from fomo_dagster.graph.nodes.hashes import HASHES, HashesNode
from fomo_dagster.graph.nodes.near_duplicates import OF_CHUNK, OF_KEPT
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.parquet import read_parquet
from fomo_dagster.tables.views import query

KINDS = ("shards", "order", "chunk", "hashes", "near_duplicates", "kept")


def scene(path, seed):
    """Write a picture of large blurred patches, another one for each seed."""
    patches = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    Image.fromarray(patches).resize((48, 48), Image.Resampling.BICUBIC).save(path)


def image(project, dataset, split, concept, name):
    return project.root / "images" / dataset / split / concept / name


@pytest.fixture
def pictures(project):
    """A project of pictures that have nothing in common, but for four that were put there: one of a
    test image in each of stages 1 and 3, one in stage 2 of what stage 1 brings, and one within
    stage 2."""
    for seed, path in enumerate(sorted((project.root / "images").glob("**/*.png"))):
        scene(path, seed)
    leaked = image(project, "birds", "test", "crow", "1.png")
    Image.open(leaked).save(image(project, "birds", "train", "robin", "leak.jpg"), quality=60)
    old = Image.open(image(project, "old", "test", "red", "0.png"))
    old.resize((90, 90)).save(image(project, "cats", "train", "lynx", "leak.png"))
    for name, source in (("again.png", "crow/0.png"), ("twice.png", "swan/2.png")):
        source = project.root / "images/birds/train" / source
        shutil.copy(source, image(project, "birds", "train", "swan", name))
    return project


def make(project, kinds=KINDS, **changes):
    """Materialise what is looked for; key → outcome."""
    project.write("toy", **changes)
    graph = project.graph()
    context = RunContext(graph, project.home)
    nodes = [node for node in graph.of("toy") if node.kind in kinds]
    return {node.key: materialise(node.key, context) for node in nodes}


PAIRS = """
SELECT stage, kind, dataset, key, other_dataset, other_split, other_key FROM near_duplicates
ORDER BY ALL
"""


def fomo(*arguments):
    return CliRunner().invoke(app, [*arguments], catch_exceptions=False)


@pytest.mark.slow
def test_what_was_put_there_is_found_and_nothing_else(pictures):
    made = make(pictures, near_duplicates={})
    assert query(pictures.home.root, PAIRS).rows() == [
        (1, "leakage", "birds", "robin/leak.jpg", "birds", "test", "crow/1.png"),
        (2, "earlier", "birds", "swan/again.png", "birds", "train", "crow/0.png"),
        (2, "within", "birds", "swan/twice.png", "birds", "train", "swan/2.png"),
        (3, "leakage", "cats", "lynx/leak.png", "old", "test", "red/0.png"),
    ]
    outcome = made["toy/near_duplicates_002"]
    assert outcome.head.facts == {"samples": 10, "leaking": 0, "repeated": 2}
    node, context = pictures.graph().nodes["toy/near_duplicates_001"], None
    first = made["toy/near_duplicates_001"]
    (check,) = node.checked(first, context)
    assert not check.passed
    assert check.details["found"].startswith("1 of 9 samples is a near duplicate of a test image")
    assert Image.open(node.shown(first, context)["pairs"].path).format == "JPEG"
    assert fomo("duplicates", "toy", "--json").exit_code == 0
    told = json.loads(fomo("duplicates", "toy", "--stage", "2", "--json").stdout)
    assert told["stages"] == [
        {"stage": 2, "samples": 10, "near_a_test_image": 0, "near_one_before": 2}
    ]
    assert [pair["kind"] for pair in told["pairs"]] == ["earlier", "within"]
    sheet = pictures.root / "sheet.png"
    shown = fomo("duplicates", "toy", "--most", "1", "--sheet", str(sheet))
    assert "3 more pairs" in shown.output
    assert Image.open(sheet).format == "PNG"


def test_an_image_that_joins_a_later_chunk_changes_nothing_of_an_earlier_one(pictures):
    make(pictures, near_duplicates={})
    before = pictures.artifacts()
    scene(image(pictures, "birds", "train", "swan", "new.png"), 900)
    made = make(pictures, near_duplicates={})
    computed = {key for key, outcome in made.items() if outcome.computed}
    assert computed == {
        "shards/birds", "streams/toy/chunk_002", "hashes/birds/train", "toy/near_duplicates_002",
        "toy/near_duplicates_003",
    }  # fmt: skip
    assert len(pictures.artifacts() - before) == len(computed)
    nearer = make(pictures, near_duplicates={"distance": 2, "mirrored": True})
    assert {key for key, outcome in nearer.items() if outcome.computed} == {
        f"toy/near_duplicates_{stage:03d}" for stage in (1, 2, 3)
    }


@pytest.mark.slow
def test_features_find_what_hashes_do_not_where_they_are_asked(pictures):
    kinds = (*KINDS, "backbone", "pool", "features")
    make(pictures, kinds, near_duplicates={"distance": 0})
    by_hashes = query(pictures.home.root, PAIRS)
    pair = {"distance": 0, "similarity": 1 - 1e-6}  # of this model, all pictures are alike
    made = make(pictures, kinds, near_duplicates=pair)
    assert {key for key, of in made.items() if of.computed} == {
        *(f"features/toy/birds/{split}" for split in ("train", "test")),
        *(f"features/toy/cats/{split}" for split in ("train", "test")),
        "features/toy/old/test", *(f"toy/near_duplicates_{stage:03d}" for stage in (1, 2, 3)),
    }  # fmt: skip
    found = query(pictures.home.root, "SELECT * FROM near_duplicates")
    assert found.filter(pl.col("similarity").is_null()).height == by_hashes.height
    copies = found.drop_nulls("similarity").filter(kind="earlier")
    assert ("swan/again.png", "crow/0.png") in copies.select("key", "other_key").rows()
    assert fomo("duplicates", "toy", "--json").exit_code == 0


def test_nothing_is_hashed_unless_an_experiment_asks(project):
    assert not [node for node in project.graph().nodes.values() if node.kind in KINDS[3:]]
    gates = {"data": {"leakage": "refuse"}}
    project.write("toy", release={"name": "shop", "gates": gates})
    nodes = project.graph().nodes
    hashed = [node for node in nodes.values() if isinstance(node, HashesNode)]
    assert {(node.name, node.split) for node in hashed} == {
        ("birds", "train"), ("birds", "test"), ("cats", "train"), ("cats", "test"), ("old", "test"),
    }  # fmt: skip
    assert "toy/near_duplicates_003" in nodes["toy/candidate_003"].inputs
    assert "toy/near_duplicates_000" not in nodes


def test_left_out_samples_are_not_trained_on_and_other_stages_stay(pictures):
    made = make(pictures, near_duplicates={"deduplicate": True})
    chunks = {s: made[f"streams/toy/chunk_{s:03d}"] for s in (1, 2, 3)}
    kept = {s: made[f"toy/kept_{s:03d}"] for s in (1, 2, 3)}
    for stage, left_out in ((1, {"robin/leak.jpg"}), (2, {"swan/again.png", "swan/twice.png"})):
        keys = [
            set(read_parquet(of[stage].artifacts[ONLY].path(MANIFEST))["key"])
            for of in (chunks, kept)
        ]
        assert keys[0] - keys[1] == left_out
        assert kept[stage].head.data_version != chunks[stage].head.data_version
    image(pictures, "cats", "train", "lynx", "leak.png").unlink()
    release = {"name": "shop", "gates": {"knowledge": {"at_least": 0}}}
    made = make(pictures, near_duplicates={"deduplicate": True}, release=release)
    hashed = made["toy/near_duplicates_002"].artifacts  # as is told of what a release learnt
    found = {n: set(read_parquet(hashed[n].path(HASHES))["key"]) for n in (OF_CHUNK, OF_KEPT)}
    assert found[OF_CHUNK] - found[OF_KEPT] == {"swan/again.png", "swan/twice.png"}
    chunk = made["streams/toy/chunk_003"].head.data_version
    assert made["toy/kept_003"].head.data_version == chunk
    assert made["toy/kept_002"].head.data_version == kept[2].head.data_version
    nodes = pictures.graph().nodes
    trained_on = [key for key in nodes["toy/trained_002"].inputs if "chunk" in key or "kept" in key]
    assert trained_on == ["toy/kept_001", "toy/kept_002"]


def test_a_plan_awaits_what_is_left_out_and_then_knows_it(pictures):
    asked = {"near_duplicates": {"deduplicate": True}}
    pictures.write("toy", **asked)

    def planned():
        graph = pictures.graph()
        entries = plan(graph.of("toy"), RunContext(graph, pictures.home))
        return {entry.asset: entry for entry in entries}

    assert planned()["toy/trained_001"].reasons == ("toy/kept_001 is computed first",)
    make(pictures, **asked)
    assert planned()["toy/trained_001"].reasons == ("never computed",)


def test_a_stage_of_nothing_but_near_duplicates_is_refused(pictures):
    for concept in ("crow", "robin"):
        for path in image(pictures, "birds", "train", concept, "").glob("*"):
            shutil.copy(image(pictures, "birds", "test", concept, "0.png"), path)
    with pytest.raises(InputError, match=r"^all 9 samples that stage 1 brings are near duplicates"):
        make(pictures, near_duplicates={"deduplicate": True})


def test_asking_for_what_was_never_looked_for_is_refused(project):
    with pytest.raises(InputError, match="what 'toy' trains on was not searched for near"):
        fomo("duplicates", "toy")
    project.write("toy", near_duplicates={"distance": 17})
    with pytest.raises(InputError, match=r"near_duplicates\.distance is 17: it must be at most 16"):
        project.load()
