"""Weights that are packed after a run are there for everything that is made from them."""

import json
import multiprocessing
import shutil

import dagster as dg
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.retention import Retention
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.run.packing import pack_weights
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.graph.run.retention import needed_next, retained, trained_last
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.store.byte_planes import write_differences

FORK = multiprocessing.get_context("fork")
PACK = {"retention": {"pack": True}}


def address(project, key):
    return project.home.heads.read(key).artifacts[ONLY]


def is_packed(project, key):
    return project.home.store.places.is_packed(*address(project, key))


def packed(project, name="toy"):
    """The stages whose trained weights are here packed alone."""
    return [n for n in (1, 2, 3) if is_packed(project, f"{name}/trained_{n:03d}")]


def changing(project, name="toy"):
    """The assets that a run would change, and those of them that it would compute."""
    graph = project.graph(name)
    entries = plan(graph.of(name), RunContext(graph, project.home))
    return (
        {entry.asset for entry in entries if not entry.current},
        {entry.asset for entry in entries if entry.compute},
    )


def apply(project, name="toy"):
    return pack_weights(name, RunContext(project.graph(name), project.home))


def content(project):
    """Stage → the bytes of its weights, which are unpacked for it."""
    store = project.home.store
    paths = {n: store.open(*address(project, f"toy/trained_{n:03d}")).folder for n in (1, 2, 3)}
    return {n: (path / "weights.safetensors").read_bytes() for n, path in paths.items()}


def invoke(*arguments):
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("wrong", ["yes, please", 3, None])
def test_whether_to_pack_is_a_yes_or_no(project, wrong):
    with pytest.raises(ValidationError):
        Retention(pack=wrong)
    project.write("toy", retention={"pack": wrong})
    with pytest.raises(InputError, match=r"retention.*pack"):
        project.load()


def test_after_a_run_all_stages_but_the_last_are_packed_without_loss(finished_project):
    project = finished_project
    before = content(project)
    assert apply(project) is None  # by default nothing is
    project.write("toy", **PACK)
    output = invoke("run", "toy")
    assert "2 checkpoints of toy" in output
    assert packed(project) == [1, 2]
    assert changing(project) == (set(), set())
    assert "packed" in invoke("store")
    (trained,) = (
        k for k in json.loads(invoke("store", "--json"))["kinds"] if k["kind"] == "trained"
    )
    assert 0 < trained["packed"] < trained["bytes"]
    assert content(project) == before
    assert apply(project).artifacts
    assert packed(project) == [1, 2]
    assert apply(project) is None


@pytest.mark.parametrize(
    ("method", "is_small"),
    [
        ({"name": "lora", "rank": 2, "scale": 0.5}, True),
        ({"name": "dora", "rank": 2}, False),
    ],
)
def test_of_lora_over_the_base_what_rounding_left_is_kept(project, tmp_path, method, is_small):
    project.write("toy", method=method)
    run_experiment("toy", [])
    before = content(project)
    project.write("toy", method=method, **PACK)
    apply(project)
    assert packed(project) == [1, 2]
    store = project.home.store
    kept = {
        stage: store.places.packed(*address(project, f"toy/trained_{stage:03d}")) / "changes"
        for stage in (1, 2)
    }
    assert content(project) == before
    base = store.folder(*address(project, "backbones/toy")) / "weights.safetensors"
    for stage, changes in kept.items():
        (tmp_path / "whole").write_bytes(before[stage])
        write_differences(tmp_path / "whole", base, tmp_path / "plain")
        plain = (tmp_path / "plain").stat().st_size
        assert (changes.stat().st_size < 0.7 * plain) == is_small, (stage, plain)


def test_a_run_as_events_tells_what_was_packed(finished_project):
    finished_project.write("toy", **PACK)
    events = [json.loads(line) for line in invoke("run", "toy", "--json").splitlines()]
    (event,) = (event for event in events if event["event"] == "weights_packed")
    assert (event["experiment"], event["artifacts"]) == ("toy", 2)
    assert event["bytes"] > 0


def test_an_evaluation_of_a_packed_stage_trains_nothing(finished_project):
    project = finished_project
    project.write("toy", **PACK)
    apply(project)
    kind, digest = project.home.heads.read("toy/evaluation_001").artifacts["cats"]
    folder = project.home.store.folder(kind, digest)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    shutil.rmtree(folder)
    assert changing(project)[1] == {"toy/evaluation_001"}
    run_experiment("toy", [])
    assert json.loads((folder / "manifest.json").read_text())["files"] == files
    assert packed(project) == [1, 2]  # again


def test_weights_of_which_something_is_not_made_yet_stay_whole(finished_project):
    project = finished_project
    project.write("toy", **PACK)
    kind, digest = project.home.heads.read("toy/evaluation_001").artifacts["cats"]
    shutil.rmtree(project.home.store.folder(kind, digest))
    apply(project)
    assert packed(project) == [2]


def test_dagster_packs_after_a_run_and_leaves_them_packed(finished_project):
    from fomo_dagster.definitions import load

    project = finished_project
    project.write("toy", **PACK)
    job = load().resolve_job_def("toy")
    for _ in range(2):
        result = job.execute_in_process(instance=dg.DagsterInstance.ephemeral())
        assert result.success
        assert packed(project) == [1, 2]
    checks = {e.asset_key.path[-1]: e.passed for e in result.get_asset_check_evaluations()
              if e.check_name == "finite_weights"}  # fmt: skip
    assert checks["trained_001"]
    assert changing(project) == (set(), set())


def test_damaged_rows_of_a_packed_stage_are_written_from_it(finished_project):
    project = finished_project
    project.write("toy", **PACK)
    apply(project)
    (rows,) = (project.home.root / "tables/training_steps").rglob("*trained_001*/*.parquet")
    data = rows.read_bytes()
    rows.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert changing(project) == ({"toy/trained_001"}, set())
    run_experiment("toy", [])
    assert rows.read_bytes() == data
    assert packed(project) == [1, 2]


def test_another_experiment_starts_from_a_packed_stage(finished_project):
    project = finished_project
    project.write("toy", **PACK)
    apply(project)
    before = content(project)
    apply(project)
    assert packed(project) == [1, 2]
    project.write("other", method={"combination": "double_merge_ft_unrolled"})
    computed = changing(project, "other")[1]
    run_experiment("other", [])
    heads = project.home.heads
    for n in (1, 2, 3):
        assert heads.read(f"other/trained_{n:03d}").status == "hit"
    assert not any("trained" in asset for asset in computed)
    assert heads.read("other/deployed_003").status == "computed"
    assert content(project) == before
    assert apply(project) is None  # as the other has them, and retains them whole


def test_merged_weights_are_packed_too(finished_project):
    project = finished_project
    project.write("other", method={"combination": "double_merge_ft_unrolled"}, **PACK)
    invoke("run", "other")
    keys = [key for key in project.home.heads.below("other") if "deployed" in key]
    assert len(keys) == 2
    assert [is_packed(project, key) for key in keys] == [True, False]
    assert changing(project, "other")[1] <= {"leaderboard"}  # which is of both


def test_what_a_process_that_runs_was_told_is_here_stays_whole(finished_project):
    project = finished_project
    project.write("toy", **PACK)
    told, ended = FORK.Event(), FORK.Event()

    def look():
        project.home.store.open(*address(project, "toy/trained_001"))
        told.set()
        ended.wait(20)

    other = FORK.Process(target=look)
    other.start()
    assert told.wait(20)
    apply(project)
    assert packed(project) == [2]
    ended.set()
    other.join(20)
    apply(project)
    assert packed(project) == [1, 2]


def test_what_the_next_stage_of_a_growing_stream_is_made_from_stays_whole(project):
    (project.root / "incoming").mkdir()
    for number, concept in enumerate(["ant", "bee"]):
        for image in range(4):
            path = project.add_image("arriving", ".", concept, 9000 + 10 * number + image)
            target = project.root / "incoming" / f"2024-0{number + 1}" / concept / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    stream = {"name": "live", "growing": "../incoming", "arriving": {"prompt": "a {}"}}
    release = {"name": "shop", "gates": {"retention": {"no_worse_than": "live", "margin": 9}}}
    for method, kept in (
        ({"combination": "ft_merge"}, {"toy/trained_002", "toy/deployed_002"}),
        ({"combination": "offline_merge"}, {"toy/trained_001", "toy/trained_002"}),
        ({"start_from": "live"}, {"toy/trained_002"}),
    ):
        project.write("toy", stream=stream, method=method, release=release, retention={"last": 1})
        graph = project.graph()
        experiment = graph.experiments["toy"]
        assert kept <= needed_next(experiment, trained_last("toy", graph))
        assert kept <= retained(experiment, graph)
