"""An experiment that names datasets of the benchmark, run on a copy of its release."""

import json
import logging

import dagster as dg
import polars as pl
import pytest
from typer.testing import CliRunner

from assets.building import build_assets
from assets.checks import check_specs_of, checks_of
from fomo_dagster.cli import planning
from fomo_dagster.cli.main import app
from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.metrics import SCORE
from resources.run_contexts import RunContexts

STREAM = ["DTD+++banded", "MTSD+++food", "clevr+++2 cubes", "FSCOCO+++sheep", "DTD+++zigzag"]


def rows(folder, concepts, **fields):
    """Three images of each of (number, class)."""
    return {
        f"{folder}/{number}_{i}.png": {"classname": name, "target": number, **fields}
        for number, name in concepts
        for i in range(3)
    }


@pytest.fixture
def benchmark_project(project, release):
    """The toy project with an experiment over six kinds of the release's datasets."""
    for handle, classes, fields in (
        ("dtd", ["banded", "zigzag"], {"synthetic_merged_caption": ["a pattern"]}),
        ("mtsd", ["food"], {}),
        ("fscoco", ["sheep"], {"default_caption": "A sketch of sheep"}),
        ("monkeys10", ["howler", "saki"], {}),
    ):
        numbered = list(enumerate(classes))
        release.add(handle, rows("a", numbered, **fields), rows("b", numbered, **fields), classes)
    for split, folder in (("train", "a"), ("test", "b")):
        release.add_resized("monkeys10", split, rows(folder, enumerate(["howler", "saki"])))
    seen = [(1, "2 cubes"), (4, "5 cubes")]
    classes = [f"{number} cubes" for number in range(1, 7)]
    lists = {"default_caption": ["some cubes", "and more of them"]}
    release.add("clevr", rows("a", seen, **lists), rows("b", seen), classes)
    captions = {"default_caption": [f"a dog {i}" for i in range(5)]}
    pictures = {f"f/{i}.png": {"target": i, **captions} for i in range(4)}
    release.add("flickr30k", {}, pictures, None)
    for handle in ("dtd", "monkeys10", "flickr30k"):
        release.pack(handle)
    release.streams = release.root / "stream_construction"
    release.streams.mkdir()
    (release.streams / "short.json").write_text(json.dumps(STREAM))
    write(project, release)
    return project


def write(project, release, **changes):
    """An experiment that declares no dataset of the release, and calls them by any name."""
    project.write(
        "toy",
        **{
            "stream": {"name": "toy", "file": str(release.streams / "short.json"), "stages": 2},
            "evaluation": {"held_out": ["MONKEYS10", "flickr30k", "old"]},
            **changes,
        },
    )


def to_compute():
    return {p.asset: set(p.compute) for p in resolve_request("toy", []).plan() if p.compute}


def evaluations(project):
    files = (project.home.root / "tables" / "evaluations").rglob("*.parquet")
    return pl.concat(pl.read_parquet(file) for file in files)


@pytest.mark.slow
def test_a_released_stream_runs_and_only_what_changed_is_made_again(benchmark_project, release):
    project = benchmark_project
    planned = to_compute()
    run_experiment("toy", [])
    assert to_compute() == {}
    assert {p.asset for p in resolve_request("toy", []).plan()} == set(planned)
    assert {key for key in planned if key.startswith("shards/")} == {
        f"shards/{name}"
        for name in ("dtd", "mtsd", "clevr", "fscoco", "monkeys10", "flickr30k", "old")
    }

    found = evaluations(project).filter(stage=2)
    scored = found.filter(metric=SCORE)
    assert dict(scored.select("dataset", "task").rows()) == {
        "dtd": "classification", "mtsd": "classification", "clevr": "classification",
        "fscoco": "retrieval", "monkeys10": "classification", "flickr30k": "retrieval",
        "old": "classification",
    }  # fmt: skip
    assert dict(scored.select("dataset", "role").rows())["flickr30k"] == "held_out"
    # Two classes of clevr have samples and all six are to choose from, or there were no top 5.
    five = found.filter(metric="top_5_accuracy")["dataset"].to_list()
    assert five == ["clevr"]

    chunk = project.home.heads.read("streams/toy/chunk_001")
    kind, digest = chunk.artifacts["only"]
    manifest = pl.read_parquet(project.home.root / "store" / kind / digest / "manifest.parquet")
    texts = dict(manifest.select("concept", "captions").rows())
    assert texts["2 cubes"] == ["some cubes", "and more of them"]
    assert texts["banded"] == ["a pattern"]
    assert texts["food"] == ['A centered photo of a "food" traffic sign.']  # the dataset's prompt

    classes = json.loads((release.info / "CLEVR_classnames.json").read_text())
    release.write("CLEVR_classnames.json", [*classes, "7 cubes"])
    release.expect("clevr", classes=7)
    expected = {
        "shards/clevr": {"only"},
        **{f"toy/evaluation_{stage:03d}": {"clevr"} for stage in range(3)},
        "toy/scores": {"only"},
        "leaderboard": {"only"},
    }
    assert to_compute() == expected
    before = project.artifacts()
    run_experiment("toy", [])
    kinds = {name.partition("/")[0] for name in project.artifacts() - before}
    assert "trained" not in kinds
    assert "chunk" not in kinds
    assert to_compute() == {}
    assert "7 cubes" in project.home.heads.read("shards/clevr").facts["concepts"]


@pytest.mark.parametrize(
    ("stream", "files"),
    [
        ({"order": "performance"}, "performance_sequence_1.json"),
        ({"order": "time_incremental"}, "time_incremental_dschunked_1.json"),
        ({"order": "time_incremental", "interleaved": True}, "time_incremental_rsagg_1.json"),
        ({"order": "dataset_incremental", "stages": None}, None),
        ({"datasets": ["MONKEYS10"], "order": "random"}, None),  # in no released stream
    ],
)
def test_an_order_that_the_release_ships_warns_where_it_is_computed(
    benchmark_project, release, caplog, stream, files
):
    write(
        benchmark_project, release,
        stream={"name": "toy", "datasets": ["dtd", "MTSD"], "stages": 2, **stream},
        evaluation={"held_out": ["old"]}, validation={"share": 0.5},
    )  # fmt: skip
    planning._said.clear()
    request = resolve_request("toy", [])
    with caplog.at_level(logging.WARNING):
        request.plan()
    said = [record.message for record in caplog.records if "stream.file" in record.message]
    order = request.graph.nodes["streams/toy_validation/order"]
    checks = [spec.name for spec in check_specs_of(order)]
    if files is None:
        assert (said, checks) == ([], [])
    else:
        assert len(said) == 1
        assert f"(dtd_validation, mtsd_validation), which the release ships as {files}" in said[0]
        assert checks == ["as_in_the_benchmark"]
        context = RunContext(request.graph, benchmark_project.home)
        [result] = order.checked(None, context)  # whatever it comes out as
        assert (result.passed, result.severity) == (False, "warning")
        assert result.details["differences"] == said[0]


def test_datasets_are_known_by_any_name_wherever_one_stands(benchmark_project, release):
    write(
        benchmark_project,
        release,
        stream={"concepts": ["DTD+++banded", "MTSD+++food"], "stages": 2},
        evaluation={"adaptation": ["DTD"], "held_out": ["CLEVR"]},
        pretraining_pool={"name": "p", "datasets": ["FSCOCO", "old"]},
    )
    loaded = benchmark_project.load()
    experiment = loaded.experiment
    assert experiment.stream.concepts == ("dtd+++banded", "mtsd+++food")
    assert experiment.evaluation.adaptation == ("dtd",)
    assert experiment.evaluation.held_out == ("clevr",)
    assert experiment.pretraining_pool.datasets == ("fscoco", "old")
    assert loaded.datasets["dtd"].prompt == "A photo of a {} texture."
    assert loaded.datasets["fscoco"].task == "retrieval"
    weighted = benchmark_project.load("toy", "pretraining_pool.datasets={FSCOCO: 2, old: 1}")
    assert weighted.experiment.pretraining_pool.datasets == {"fscoco": 2, "old": 1}
    for twice in ("[DTD, dtd]", "{DTD: 1, dtd: 2}"):
        with pytest.raises(InputError, match="names a dataset twice"):
            benchmark_project.load("toy", f"pretraining_pool.datasets={twice}")


def test_a_dataset_that_the_project_declares_keeps_its_name(benchmark_project, release):
    declared = {"source": {"type": "fomo_release", "dataset": "mtsd"}, "prompt": "my {}"}
    other = {"source": {"type": "folder", "path": "x"}}
    write(
        benchmark_project,
        release,
        datasets={"DTD": declared, "cub200": other},
        stream={"datasets": ["DTD", "CUB200"], "stages": 1},
    )
    loaded = benchmark_project.load()
    assert loaded.experiment.stream.datasets == ("DTD", "cub200")
    # What the declaration leaves out is what the benchmark says of the dataset that it names.
    assert loaded.datasets["DTD"].domain == "traffic signs"
    assert loaded.datasets["DTD"].prompt == "my {}"
    assert loaded.datasets["cub200"].source.type == "folder"
    assert loaded.datasets["dtd"].source.dataset is None


def test_a_name_that_nobody_knows_is_refused_with_the_nearest(benchmark_project, release):
    (release.streams / "short.json").write_text(json.dumps(["DTD+++banded", "MTSS+++food"]))
    with pytest.raises(InputError, match=r"names dataset 'MTSS', which is not declared.*'MTSD'"):
        resolve_request("toy", [])
    (release.streams / "short.json").write_text(json.dumps(["DTD+++bandit", "MTSD+++food"]))
    with pytest.raises(InputError, match=r"'bandit' of dtd \(did you mean 'banded'"):
        resolve_request("toy", []).plan()
    write(benchmark_project, release, datasets={"x": {"source": {"type": "fomo_release"}}})
    with pytest.raises(InputError, match=r"toy\.yaml: .*the benchmark has no dataset 'x'"):
        benchmark_project.load()


def test_a_released_stream_may_be_named_by_where_the_release_is(
    benchmark_project, release, monkeypatch
):
    file = "${FOMO_RELEASE}/stream_construction/short.json"
    write(benchmark_project, release, stream={"file": file, "stages": 1})
    monkeypatch.setenv("FOMO_RELEASE", str(release.root))
    assert "shards/fscoco" in benchmark_project.graph().nodes
    monkeypatch.delenv("FOMO_RELEASE")
    with pytest.raises(InputError, match=r"toy\.yaml, line.*FOMO_RELEASE is not set"):
        benchmark_project.graph()


@pytest.mark.parametrize("quick", [False, True])
def test_the_list_of_datasets_says_which_are_incomplete(benchmark_project, release, quick):
    """In a tar and in a folder; a look at a few files alone takes both for present."""
    gone = next((release.images / "MTSD").rglob("*.png"))
    gone.unlink()
    release.expect("dtd", train=7)
    arguments = ["datasets", "--quick"] if quick else ["datasets"]
    asked = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    rows = {row["name"]: row for row in json.loads(asked.stdout)}
    states = {name: rows[name]["state"] for name in ("clevr", "mtsd", "dtd", "monkeys10", "cub200")}
    differs = "present" if quick else "incomplete"
    assert states == {
        "clevr": "present", "mtsd": differs, "dtd": differs, "monkeys10": "present",
        "cub200": "missing",
    }  # fmt: skip
    if not quick:
        assert "1 of 3 " in rows["mtsd"]["note"]
        assert gone.name in rows["mtsd"]["note"]
        assert rows["dtd"]["note"] == "DTD_train.json lists 6 train images instead of 7"
        told = CliRunner().invoke(app, ["datasets"], catch_exceptions=False).stdout
        note = f"mtsd: {rows['mtsd']['note']}"  # a long path is broken where a line ends
        assert "".join(note.split()) in "".join(told.split())
        of_no_path = [line for line in told.splitlines() if gone.name not in line]
        assert max(map(len, of_no_path)) <= 80
        row = "domainnet_infograph adaptation (345) (36,023) (15,582) missing no archive"
        assert row in " ".join(told.split())
        shown = CliRunner().invoke(app, ["datasets", "show", "MTSD"])
        assert "".join(rows["mtsd"]["note"].split()) in "".join(shown.stdout.split())
        assert isinstance(shown.exception, DataError)
        assert gone.name in str(shown.exception)
    assert not list(benchmark_project.home.root.glob("store/shards"))


def test_what_is_missing_is_refused_or_said_once(benchmark_project, release, caplog):
    gone = next((release.images / "MTSD").rglob("*.png"))
    gone.unlink()
    with pytest.raises(DataError, match=f"'mtsd' is not as in the benchmark.*{gone.name}"):
        resolve_request("toy", []).plan()
    allowed = {"mtsd": {"source": {"type": "fomo_release", "allow_incomplete": True}}}
    write(benchmark_project, release, datasets=allowed)
    planning._said.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            resolve_request("toy", []).plan()
    said = [record.message for record in caplog.records if gone.name in record.message]
    assert len(said) == 1
    assert "1 of 3" in said[0]

    request = resolve_request("toy", [])
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            build_assets(request.graph),
            selection=dg.AssetSelection.assets(["shards", "mtsd"], ["shards", "dtd"]),
            resources={"run_contexts": RunContexts.of(benchmark_project.home)},
            instance=instance,
        )
    checks = {
        check.asset_key.path[-1]: check
        for check in done.get_asset_check_evaluations()
        if check.check_name == "as_in_the_benchmark"
    }
    assert {name: check.passed for name, check in checks.items()} == {"mtsd": False, "dtd": True}
    assert gone.name in checks["mtsd"].metadata["differences"].value
    [mtsd] = [
        event.step_materialization_data.materialization.metadata
        for event in done.get_asset_materialization_events()
        if event.asset_key.path[-1] == "mtsd"
    ]
    assert gone.name in mtsd["warnings"].value


def test_classes_of_the_list_that_have_no_samples_are_no_empty_concepts(benchmark_project):
    """CLEVR's list has six classes here, of which two have images."""
    context = RunContext(resolve_request("toy", []).graph, benchmark_project.home)
    outcome = materialise("shards/clevr", context)
    results = checks_of(context.graph.nodes["shards/clevr"], outcome, context)
    assert {result.check_name: result.passed for result in results}["no_empty_concepts"]


def test_where_a_release_lies_is_no_identity(benchmark_project, release):
    before = benchmark_project.graph().code_versions
    mtsd = {"source": {"type": "fomo_release", "release": "/r", "images": "/i"}}
    write(benchmark_project, release, datasets={"mtsd": mtsd})
    assert benchmark_project.graph().code_versions == before
