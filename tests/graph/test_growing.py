"""A growing stream: what arrives is one stage more, and nothing before it is computed again."""

import json
import shutil

import dagster as dg
import polars as pl
import pytest

from assets.building import build_definitions
from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import COMMANDS, run_experiment
from fomo_dagster.errors import InputError
from fomo_dagster.graph.build.declared_streams import with_arrivals
from fomo_dagster.graph.run.promotion import promote_stage
from fomo_dagster.tables.results import results
from fomo_dagster.tables.views import query
from resources.run_contexts import RunContexts

pytestmark = pytest.mark.slow

STREAM = {"name": "live", "growing": "../incoming", "arriving": {"prompt": "a photo of a {}"}}
FIRST = {"2024-01": ("ant", "bee"), "2024-02": ("cow", "dog")}


def arrive(project, entry, concepts):
    for number, concept in enumerate(concepts):
        for image in range(5):
            seed = 7000 + 100 * sum(map(ord, entry)) + 10 * number + image
            path = project.add_image("arriving", ".", concept, seed)
            target = project.root / "incoming" / entry / concept / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)


def enter(project, monkeypatch):
    monkeypatch.setenv("FOMO_PROJECT", str(project.root))
    monkeypatch.setenv("FOMO_HOME", str(project.home.root))
    monkeypatch.setenv("DAGSTER_HOME", str(project.home.dagster))
    return project


@pytest.fixture(scope="module")
def grown(finished, tmp_path_factory):
    """A project whose stream has grown by two entries, and was run; never changed, only copied."""
    root = tmp_path_factory.mktemp("grown") / "project"
    shutil.copytree(finished.root, root)
    made = type(finished)(root)
    for entry, concepts in FIRST.items():
        arrive(made, entry, concepts)
    made.write("toy", stream=STREAM)
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(made, monkeypatch)
        run_experiment("toy", [])
    return made


@pytest.fixture
def growing(grown, tmp_path, monkeypatch):
    shutil.copytree(grown.root, tmp_path / "project")
    return enter(type(grown)(tmp_path / "project"), monkeypatch)


def through_fomo_run():
    run_experiment("toy", [])


def through_dagster():
    """The experiment's whole job, after a reload of the definitions."""
    run_request = resolve_request("toy", [])
    definitions = build_definitions(run_request.graph, RunContexts.of(run_request.home), COMMANDS)
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_job_def("toy")
        assert job.execute_in_process(instance=instance).success


def through_the_sensor_s_job():
    """With definitions that were loaded before: what the sensor asks for, run as it asks."""
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, cursor=BEFORE.cursor)
        [request] = BEFORE.sensor(context).run_requests
        job = BEFORE.definitions.resolve_job_def("grow_streams")
        done = job.execute_in_process(instance=instance, run_config=request.run_config)
        assert done.success
        third = dg.AssetKey(["toy", "trained_003"])
        assert instance.get_latest_materialization_event(third) is not None


class BEFORE:
    """What Dagster loaded before anything further arrived."""


def artifacts_of(project, new):
    """Asset → names of its artifacts among `new`."""
    found = {}
    for node in resolve_request("toy", []).nodes:
        head = project.home.heads.read(node.key)
        names = {n for n, (kind, digest) in head.artifacts.items() if f"{kind}/{digest}" in new}
        if names:
            found[node.key] = names
    return found


@pytest.mark.parametrize("through", [through_fomo_run, through_dagster, through_the_sensor_s_job])
def test_an_arrival_computes_its_own_stage_and_the_summaries_alone(growing, through):
    run_request = resolve_request("toy", [])
    BEFORE.definitions = build_definitions(
        run_request.graph, RunContexts.of(run_request.home), COMMANDS
    )
    BEFORE.sensor = BEFORE.definitions.get_repository_def().get_sensor_def("arrivals")
    with dg.DagsterInstance.ephemeral() as instance:
        BEFORE.cursor = BEFORE.sensor(dg.build_sensor_context(instance=instance)).cursor
    before = growing.artifacts()
    versions = dict(run_request.graph.code_versions)
    arrive(growing, "2024-03.partial", ("elk", "fox"))
    assert not any(entry.compute for entry in resolve_request("toy", []).plan())
    (growing.root / "incoming/2024-03.partial").rename(growing.root / "incoming/2024-03")
    expected = {
        "shards/live_2024_03": {"only"}, "streams/live/order": {"only"},
        "streams/live/chunk_003": {"only"}, "toy/trained_003": {"only"},
        "toy/evaluation_003": {"live_2024_01", "live_2024_02", "live_2024_03", "old"},
        "toy/scores": {"only"}, "leaderboard": {"only"},
    }  # fmt: skip
    assert {
        e.asset: set(e.compute) for e in resolve_request("toy", []).plan() if e.compute
    } == expected
    grown = resolve_request("toy", []).graph.code_versions
    changed = {key for key in versions if versions[key] != grown[key]}
    assert changed == {"streams/live/order", "toy/scores", "leaderboard"}
    through()
    assert artifacts_of(growing, growing.artifacts() - before) == expected
    assert all(entry.current for entry in resolve_request("toy", []).plan())


def test_accumulation_is_the_mean_over_what_has_arrived(growing):
    stages = results(growing.home.root, ["toy"]).stages.sort("stage")
    evaluations = query(growing.home.root, "FROM evaluations WHERE metric = 'score'")
    assert stages["knowledge_accumulation"][0] is None
    for stage, names in ((1, {"live_2024_01"}), (2, {"live_2024_01", "live_2024_02"})):
        rows = evaluations.filter((pl.col("stage") == stage) & (pl.col("role") == "adaptation"))
        assert set(rows["dataset"]) == names
        assert stages["knowledge_accumulation"][stage] == pytest.approx(rows["value"].mean())
    assert stages["zero_shot_retention"].null_count() == 0


def test_gates_ask_each_stage_about_what_has_arrived_by_then(growing, caplog):
    gates = {
        "knowledge": {"at_least": 0},
        "protected": {"datasets": ["live_2024_02"], "concepts": ["cow"], "margin": 100},
        "calibration": {"ece_at_most": 1},
    }
    growing.write("toy", stream=STREAM, release={"name": "shop", "gates": gates})
    run_experiment("toy", [])
    told = query(growing.home.root, "SELECT stage, gate, passed, said FROM gates")
    knowledge = told.filter(gate="knowledge").sort("stage")
    assert knowledge["passed"].to_list() == [False, True, True]
    assert "no adaptation dataset is evaluated at this stage" in knowledge["said"][0]
    with pytest.raises(InputError, match="stage 0, does not pass the gates of shop: knowledge: KA"):
        promote_stage("toy", 0, first=True)
    promote_stage("toy", 1, first=True)
    run_experiment("toy", [])
    told = query(growing.home.root, "SELECT gate, passed FROM gates WHERE stage = 2")
    assert dict(told.filter(pl.col("gate").str.starts_with("protected")).rows()) == {
        "protected: live_2024_02": True, "protected: live_2024_02/cow": True
    }  # fmt: skip
    gates["protected"]["concepts"] = ["cwo"]
    growing.write("toy", stream=STREAM, release={"name": "shop", "gates": gates})
    gates["protected"]["datasets"] = ["live_2024_09"]
    growing.write("toy", stream=STREAM, release={"name": "shop", "gates": gates})
    caplog.clear()
    resolve_request("toy", []).plan()  # it may still arrive
    assert "toy: release.gates.protected names the concept 'cwo', which no" in caplog.text
    assert "did you mean 'cow'. Nothing goes live before it arrives" in caplog.text
    assert "names the dataset 'live_2024_09', which is not evaluated" in caplog.text


def test_a_test_set_that_arrives_is_held_against_what_was_trained_on_before(growing):
    release = {"name": "shop", "gates": {"data": {}}}
    growing.write("toy", stream=STREAM, release=release)
    run_experiment("toy", [])
    entries = growing.root / "incoming"
    shutil.copytree(entries / "2024-01/ant", entries / "2024-03/elk")
    before = growing.artifacts()
    run_experiment("toy", [])
    assert "toy/near_duplicates_002" not in artifacts_of(growing, growing.artifacts() - before)
    pairs = query(growing.home.root, "FROM near_duplicates WHERE kind = 'past_leakage'")
    assert set(pairs["stage"]) == {3}
    assert set(pairs["other_dataset"]) == {"live_2024_03"}
    assert ("live_2024_01", "ant") in {
        (dataset, key.partition("/")[0]) for dataset, key in pairs.select("dataset", "key").rows()
    }
    (said,) = query(growing.home.root, "SELECT said FROM gates WHERE stage = 3").rows()
    assert "of those that earlier stages brought is a near duplicate of a test image" in said[0]


def test_a_stream_of_which_nothing_has_arrived_is_stage_0_alone(growing):
    for path in (growing.root / "incoming").iterdir():
        path.rename(growing.root / f".{path.name}")
    run_experiment("toy", [])
    assert results(growing.home.root, ["toy"]).stages["stage"].to_list() == [0]
    assert all(entry.current for entry in resolve_request("toy", []).plan())


def test_an_entry_that_sorts_before_others_is_another_order(growing):
    first = resolve_request("toy", []).graph.nodes["streams/live/chunk_001"]
    arrive(growing, "2023", ("gnu",))
    graph = resolve_request("toy", []).graph
    assert graph.nodes["streams/live/chunk_001"].inputs == ("shards/live_2023",)
    assert graph.nodes["streams/live/chunk_002"].inputs == first.inputs


def test_a_table_of_images_is_a_stage_too(growing):
    rows = [
        {"path": f"2024-01/ant/{path.name}", "concept": "ant again", "split": split}
        for path, split in zip(
            sorted((growing.root / "incoming/2024-01/ant").iterdir()),
            ("train", "train", "train", "test", "test"), strict=True,
        )
    ]  # fmt: skip
    table = "\n".join(map(json.dumps, rows))
    (growing.root / "incoming/2024-03.jsonl").write_text(table)
    run_experiment("toy", [])
    chunk = growing.home.heads.read("streams/live/chunk_003")
    assert chunk.facts["concepts"] == [["live_2024_03", "ant again"]]


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ({"growing": "../incoming"}, "a growing stream needs a name"),
        ({**STREAM, "stages": 3}, "leave out stages"),
        ({**STREAM, "order": "random", "seed": 2}, "leave out order, seed"),
        ({**STREAM, "datasets": ["birds"]}, "exactly one of datasets, concepts, file, growing"),
        (
            {"datasets": ["birds"], "stages": 1, "arriving": {"prompt": "{}"}},
            "arriving applies to growing streams only",
        ),
    ],
)
def test_a_growing_stream_says_no_more_than_it_needs(growing, stream, message):
    growing.write("toy", stream=stream)
    with pytest.raises(InputError, match=message):
        growing.load()


def test_a_growing_stream_needs_something_to_evaluate_before_anything_arrives(growing):
    growing.write("toy", stream=STREAM, evaluation={"held_out": []})
    with pytest.raises(InputError, match=r"evaluation.held_out or .adaptation"):
        growing.graph()


def test_what_has_no_test_samples_is_refused_before_anything_is_trained(project):
    bare = {"type": "folder", "path": "../images/birds/train", "test_share": 0}
    project.write(
        "toy", stream={"datasets": ["bare"], "stages": 1}, datasets={"bare": {"source": bare}}
    )
    with pytest.raises(InputError, match=r"dataset 'bare' has no test samples.*test_share"):
        resolve_request("toy", []).plan()


def test_how_much_of_an_entry_is_held_out_can_be_said(growing):
    def shares():
        datasets = with_arrivals(growing.load(), growing.root / "incoming").datasets
        return {datasets[f"live_{name}"].source.test_share for name in ("2024_01", "2024_03")}

    (growing.root / "incoming/2024-03.csv").touch()
    assert shares() == {0.2}
    arriving = {"prompt": "a {}", "test_share": 0.5}
    growing.write("toy", stream={**STREAM, "arriving": arriving})
    assert shares() == {0.5}


def test_an_entry_that_would_take_a_declared_name_is_refused(growing):
    declared = {"live_2024_01": {"source": {"type": "folder", "path": "../images/old"}}}
    growing.write("toy", stream=STREAM, datasets=declared)
    with pytest.raises(InputError, match="'live_2024_01', which is declared"):
        growing.graph()
