"""Pretraining pools with weights or of tars: their identity, and that they reach the training."""

import io
import json
import shutil
import zipfile

import numpy as np
import polars as pl
import pytest
from PIL import Image

from assets.descriptions import metadata_of, metadata_of_source
from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.data.index import Index
from fomo_dagster.data.pixel_rules import NEWEST
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.training import Budget
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.checkpoints import WEIGHTS
from fomo_dagster.graph.work.indexes import index_of
from fomo_dagster.graph.work.opened_pools import pool_captions, pretraining_pool
from fomo_dagster.tables.views import query
from fomo_dagster.training.steps import steps_of
from tests.conftest import EXPERIMENT


def weighted(**weights):
    return {"name": "weighted", "datasets": weights}


def make(project, *keys):
    """Materialise some assets alone."""
    context = RunContext(resolve_request("toy", []).graph, project.home)
    for key in keys:
        materialise(key, context)
    return context


def drawn(project, pool, count):
    """The first captions of a pool, as stage 1 draws them."""
    opened = pretraining_pool(f"pools/{pool}", make(project), Execution(), NEWEST)
    return [opened.sample(0, 1, position).captions[0] for position in range(count)]


def test_each_dataset_of_a_weighted_pool_has_its_share_and_repeats_nothing(finished_project):
    finished_project.write("toy", pretraining_pool=weighted(old=1, cats=2))
    run_experiment("toy", [])
    captions = drawn(finished_project, "weighted", 24)
    cats = [text for text in captions if text.endswith(("lion", "lynx"))]
    assert len(cats) == 16  # two thirds, and each of the 8 images twice
    assert cats[:8].count("a photo of a lion") == cats[8:].count("a photo of a lion") == 4
    steps = pl.read_parquet(
        next((finished_project.home.root / "tables/training_steps/toy").rglob("*.parquet"))
    )
    assert (steps["pretraining_samples"] > 0).all()


def test_weights_of_the_same_proportions_are_the_same_pool(finished_project):
    finished_project.write("toy", pretraining_pool=weighted(old=1, cats=2))
    make(finished_project, "pools/weighted")
    finished_project.write("toy", pretraining_pool=weighted(cats=50.0, old=25))
    assert {e.asset: e for e in resolve_request("toy", []).plan()}["pools/weighted"].current
    finished_project.write("toy", pretraining_pool=weighted(cats=50.0, old=26))
    planned = {e.asset: e for e in resolve_request("toy", []).plan() if e.compute}
    assert {"pools/weighted", "toy/trained_001"} <= planned.keys()
    assert not any(asset.startswith("shards/") for asset in planned)
    assert "weights.old 1 → 13" in planned["pools/weighted"].reasons


def test_one_dataset_with_a_weight_is_the_pool_of_it_alone(finished_project):
    def address(datasets):
        pool = {"name": "weighted", "datasets": datasets}
        finished_project.write("toy", pretraining_pool=pool)
        request = resolve_request("toy", [])
        node = request.graph.nodes["pools/weighted"]
        facts = node.input_facts(RunContext(request.graph, finished_project.home))
        return node.recipes(facts)["only"].digest

    assert address({"old": 0.3}) == address(["old"])
    assert address({"old": 0.5, "cats": 0.5}) != address(["old", "cats"])


@pytest.mark.parametrize("weight", [0, -1])
def test_a_weight_that_draws_nothing_is_refused(project, weight):
    project.write("toy", pretraining_pool=weighted(old=1, cats=weight))
    with pytest.raises(InputError, match=rf"weight of 'cats' is {weight} and must be above 0"):
        resolve_request("toy", [])


WEB = {"web": {"source": {"type": "webdataset", "shards": "../tars"}, "unreadable_limit": 0.5}}


def of_tars(project, datasets=("web",), declared=WEB):
    """Write the experiment with a pretraining pool of `datasets`."""
    pool = {"name": "web", "datasets": datasets if isinstance(datasets, dict) else list(datasets)}
    project.write("toy", datasets=declared, pretraining_pool=pool)


@pytest.fixture
def with_tars(finished_project, tars):
    for shard in range(2):
        tars.shard(finished_project.root / "tars", shard, 12)
    broken = {"x.jpg": tars.picture(1)} | tars.members(90_000)
    tars.write(finished_project.root / "tars/00009.tar", broken)
    of_tars(finished_project)
    return finished_project


def test_a_pool_of_tars_is_indexed_in_place_and_trained_on(with_tars, capsys):
    planned = {e.asset for e in resolve_request("toy", []).plan() if e.compute}
    assert {"shards/web", "pools/web", "toy/trained_001"} <= planned
    run_experiment("toy", [])
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of 26 samples of dataset 'web' cannot be used and are left out: " in said
    assert "00009.tar/x (it has no text)" in said
    head = with_tars.home.heads.read("shards/web")
    assert head.facts["train_samples"] == {"web": 25}
    kind, digest = head.artifacts["only"]
    folder = with_tars.home.store.folder(kind, digest)
    assert not list(folder.glob("*.tar"))
    assert pl.read_parquet(folder / "quarantine.parquet").rows() == [
        ("train", "00009.tar/x", pl.read_parquet(folder / "quarantine.parquet")["digest"][0],
         1, "it has no text")
    ]  # fmt: skip
    assert all(entry.current for entry in resolve_request("toy", []).plan())
    rows = results_of(with_tars, "datasets").filter(dataset="web")
    assert rows.select("train_samples", "quarantined").row(0) == (25, 1)


def results_of(project, table):
    return pl.concat(
        pl.read_parquet(path) for path in (project.home.root / "tables" / table).rglob("*.parquet")
        if path.name != "empty.parquet"
    )  # fmt: skip


def test_tars_that_move_change_nothing_and_new_ones_change_the_pool_alone(with_tars, tars):
    make(with_tars, "shards/web", "pools/web")
    (with_tars.root / "tars").rename(with_tars.root / "elsewhere")
    moved = {"web": {**WEB["web"], "source": {"type": "webdataset", "shards": "../elsewhere"}}}
    of_tars(with_tars, declared=moved)
    planned = {e.asset: e for e in resolve_request("toy", []).plan()}
    assert planned["shards/web"].current
    assert planned["pools/web"].current
    assert len(drawn(with_tars, "web", 3)) == 3  # the index finds them where they lie now
    tars.shard(with_tars.root / "elsewhere", 3, 2)
    planned = {e.asset for e in resolve_request("toy", []).plan() if e.compute}
    assert {"shards/web", "pools/web", "toy/trained_001"} <= planned
    assert not planned & {"backbones/toy", "shards/old", "streams/toy/chunk_001"}


def test_the_same_samples_in_other_tars_are_the_same_pool(with_tars, tars):
    make(with_tars, "shards/web", "pools/web")
    before = with_tars.home.heads.read("pools/web").data_version
    folder = with_tars.root / "tars"
    for path in folder.glob("0000[01].tar"):
        path.unlink()
    tars.write(folder / "renamed.tar", tars.content(0, 12) | tars.content(1, 12))
    make(with_tars, "shards/web", "pools/web")
    assert with_tars.home.heads.read("pools/web").data_version == before


def test_tars_that_changed_since_are_refused_where_nothing_looked_again(with_tars, tars):
    make(with_tars, "shards/web", "pools/web")
    tars.shard(with_tars.root / "tars", 0, 11)
    with pytest.raises(DataError, match=r"'00000.tar'; materialise"):
        drawn(with_tars, "web", 1)


def test_a_pool_has_as_many_samples_as_its_tars_however_keys_repeat(finished_project, tars):
    for shard in range(2):
        content = {}
        for n in range(3):
            about = json.dumps({"key": "same", "caption": f"{shard} {n}"}).encode()
            content |= {f"{n}.jpg": tars.picture(10 * shard + n), f"{n}.json": about}
        tars.write(finished_project.root / f"tars/{shard}.tar", content)
    of_tars(finished_project)
    context = make(finished_project, "shards/web", "pools/web")
    pool = pretraining_pool("pools/web", context, Execution(), NEWEST)
    assert pool.size == index_of("web", context).samples.height == 6
    seen = [pool.sample(0, 1, position) for position in range(6)]
    colours = {sample.captions[0]: int(sample.image[5, 5, 0]) for sample in seen}
    expected = {f"{shard} {n}": (10 * shard + n) * 3 for shard in range(2) for n in range(3)}
    assert colours == pytest.approx(expected, abs=3)  # each caption with its own image


def test_an_image_of_a_tar_that_cannot_be_decoded_is_replaced_and_said(with_tars, tars, caplog):
    bad = tars.members(80_000)
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    whole = io.BytesIO()
    Image.fromarray(noise).save(whole, "JPEG")
    bad["000080000.jpg"] = whole.getvalue()[:3000]  # its header is as it should be
    tars.write(with_tars.root / "tars/00008.tar", bad)
    make(with_tars, "shards/web", "pools/web")
    captions = drawn(with_tars, "web", 26)
    assert "caption 80000" not in captions
    assert len(captions) - len(set(captions)) == 1
    assert "00008.tar cannot be decoded" in caplog.text
    assert captions == drawn(with_tars, "web", 26)


def test_more_broken_members_than_the_limit_are_an_error(with_tars):
    of_tars(with_tars, declared={"web": {**WEB["web"], "unreadable_limit": 0.01}})
    with pytest.raises(DataError, match=r"1 of 26 samples \(3.85%\) .*00009.tar/x \(it has no"):
        make(with_tars, "shards/web")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"shards": "s3://bucket/{0..3}.tar"}, "cannot be indexed in place: add `index: false`"),
        ({"samples_per_visit": 5}, "samples_per_visit needs `index: false`"),
        ({"index": False, "test_share": 0.1}, "a streamed dataset cannot hold samples out"),
        ({"shards": []}, "shards is empty: name"),
    ],
)
def test_declarations_of_tars_that_cannot_be_are_refused(with_tars, change, error):
    declared = {"web": {**WEB["web"], "source": {**WEB["web"]["source"], **change}}}
    of_tars(with_tars, declared=declared)
    with pytest.raises(InputError, match=error):
        resolve_request("toy", [])


@pytest.fixture
def with_stream(with_tars):
    """The tars in an archive, which stands for a remote store."""
    archive = with_tars.root / "remote.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in sorted((with_tars.root / "tars").glob("*.tar")):
            zipped.write(path, path.name)
    source = {
        "type": "webdataset", "shards": f"zip://*.tar::{archive}", "index": False,
        "samples_per_visit": 4, "shards_at_once": 2,
    }  # fmt: skip
    of_tars(with_tars, declared={"web": {"source": source}})
    return with_tars


def test_a_streamed_pool_is_trained_on_and_says_what_it_skipped(with_stream):
    planned = {e.asset for e in resolve_request("toy", []).plan() if e.compute}
    assert {"shards/web", "pools/web", "toy/trained_001"} <= planned
    assert not (with_stream.home.cache / "streamed").exists()  # a plan fetches nothing
    run_experiment("toy", [])
    assert all(entry.current for entry in resolve_request("toy", []).plan())
    cost = with_stream.home.heads.read("toy/trained_001").cost
    assert cost["streamed_shards"] == 2
    assert cost["skipped_members"] in (0, 1)
    captions = list(pool_captions("pools/web", make(with_stream), Execution()))
    assert len(captions) == len(set(captions)) == 25
    assert {"caption 0", "caption 10013", "caption 90000"} <= set(captions)


def test_streamed_indexed_and_sharded_datasets_mix_by_weights(with_stream):
    declared = {
        "web": with_stream.load().datasets["web"].model_dump(mode="json"),
        "placed": WEB["web"],
    }
    of_tars(with_stream, {"web": 2, "placed": 1, "old": 1}, declared)
    make(with_stream, "shards/web", "shards/placed", "pools/web")
    captions = drawn(with_stream, "web", 40)
    assert sum(text.startswith("a photo of") for text in captions) == 10
    assert captions == drawn(with_stream, "web", 40)
    of_tars(with_stream, ["web", "old"], declared)
    with pytest.raises(InputError, match=r"'web', which is streamed .* give each .* a weight"):
        resolve_request("toy", [])


def test_what_was_streamed_can_become_a_folder_of_the_same_name(with_stream):
    make(with_stream, "shards/web")
    folder = with_stream.load("toy").datasets["old"].model_dump(mode="json")
    of_tars(with_stream, declared={"web": {**folder, "resize": 20}})
    planned = {e.asset for e in resolve_request("toy", []).plan() if e.compute}
    assert {"shards/web", "pools/web"} <= planned


@pytest.mark.parametrize(
    "change",
    [
        {"evaluation": {"held_out": ["web"]}},
        {"stream": {"name": "toy", "datasets": ["birds", "web"], "stages": 3}},
    ],
)
def test_a_streamed_dataset_is_refused_where_its_samples_must_be_known(with_stream, change):
    declared = {"web": with_stream.load().datasets["web"].model_dump(mode="json")}
    with_stream.write("toy", datasets=declared, **change)
    with pytest.raises(InputError, match=r"dataset 'web', which is streamed .*pretraining pool"):
        resolve_request("toy", [])


def test_validation_of_tars_in_place_is_refused(with_tars):
    with_tars.write("toy", datasets=WEB, evaluation={"held_out": ["web"]}, validation={})
    with pytest.raises(InputError, match="'web', whose tars are read where they lie"):
        resolve_request("toy", [])


def test_a_pool_of_shards_that_changed_since_is_refused(with_stream, tars):
    make(with_stream, "shards/web", "pools/web")
    path = tars.shard(with_stream.root, 5, 3)
    with zipfile.ZipFile(with_stream.root / "remote.zip", "a") as zipped:
        zipped.write(path, path.name)
    with pytest.raises(DataError, match="'web' changed since its pool was made"):
        drawn(with_stream, "web", 1)
    planned = {e.asset for e in resolve_request("toy", []).plan() if e.compute}
    assert {"shards/web", "pools/web", "toy/trained_001"} <= planned


def test_epochs_over_a_pool_of_unknown_size_are_refused(with_stream):
    make(with_stream, "shards/web", "pools/web")
    pool = pretraining_pool("pools/web", make(with_stream), Execution(), NEWEST)
    with pytest.raises(InputError, match="the number of samples of a streamed dataset is unknown"):
        steps_of(Budget(epochs=1), 8, pool.size, 8)


def test_dagster_shows_the_shards_the_shares_and_what_was_skipped(with_stream):
    declared = {
        "web": with_stream.load().datasets["web"].model_dump(mode="json"),
        "placed": WEB["web"],
    }
    of_tars(with_stream, {"web": 3, "placed": 1}, declared)
    context = make(with_stream)

    def shown(key):
        outcome = materialise(key, context)
        return metadata_of(context.graph.nodes[key], outcome, context)

    placed, listing, pool = map(shown, ("shards/placed", "shards/web", "pools/web"))
    assert placed["train_samples"] == 25
    assert placed["unreadable_images"] == 1
    assert placed["unreadable"].records[0].data["key"] == "00009.tar/x"
    assert listing["shards"] == 3
    assert [record.data for record in pool["shares"].records] == [
        {"dataset": "placed", "percent": 25.0},
        {"dataset": "web", "percent": 75.0},
    ]
    assert [record.data for record in pool["streamed"].records] == [{"dataset": "web", "shards": 3}]
    looked = [metadata_of_source(context.observe(f"sources/{name}")) for name in ("placed", "web")]
    assert looked == [{"tars": 3, "samples": 25, "skipped": 1}, {"shards": 3}]


def test_decoded_images_are_kept_within_a_room_and_change_nothing(finished_project, capsys):
    home, key = finished_project.home, "toy/trained_001"
    kind, digest = home.heads.read(key).artifacts[ONLY]
    folder = home.root / "store" / kind / digest
    weights = (folder / WEIGHTS).read_bytes()
    shutil.rmtree(folder)
    finished_project.write("toy", execution={**EXPERIMENT["execution"], "decoded_cache_gib": 1})
    run_experiment("toy", [])
    assert (folder / WEIGHTS).read_bytes() == weights
    assert [*(home.cache / "decoded").glob("*/*/*")]
    said = " ".join("".join(capsys.readouterr()).split())
    assert "the decoded images of birds take about" in said
    assert "of the 1 that there may be of all" in said


def test_evaluations_keep_decoded_images_too_and_find_the_same(finished_project):
    home, rows = finished_project.home, "SELECT * FROM predictions ORDER BY ALL"
    before = query(home.root, rows)
    finished_project.write("toy", execution={**EXPERIMENT["execution"], "decoded_cache_gib": 1})
    for _ in range(2):  # which write them, and read them
        shutil.rmtree(home.root / "store" / "evaluation")
        run_experiment("toy", [])
        assert query(home.root, rows).equals(before)
    kept = home.cache / "decoded"
    assert len([*kept.glob("*/*/*")]) == sum(
        Index(home.root / "store" / "shards" / folder.name).rows("test").height
        for folder in kept.iterdir()
        if folder.is_dir()
    )
