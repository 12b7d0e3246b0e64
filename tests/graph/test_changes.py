"""What changed → what is computed again, through `fomo run` and through Dagster by turns.

Every case is planned first; what the plan says must be what is then computed, artifact by artifact.
"""

from pathlib import Path

import dagster as dg
import pytest

from assets.building import build_definitions
from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import COMMANDS, run_experiment
from fomo_dagster.home import Home
from fomo_dagster.tables.views import query
from resources.run_contexts import RunContexts

pytestmark = pytest.mark.slow

STAGES = (1, 2, 3)
CONCEPTS = [
    "birds+++robin", "birds+++wren", "birds+++crow", "birds+++swan", "cats+++lion", "cats+++lynx",
]  # fmt: skip
# What follows whenever any evaluation is another one.
SUMMARY = {"toy/scores": {"only"}, "leaderboard": {"only"}}


def through_fomo_run(name, overrides):
    run_experiment(name, overrides)


def through_dagster(name, overrides):
    """The experiment's whole job, as `dagster job execute` or the UI would run it."""
    request = resolve_request(name, overrides)
    definitions = build_definitions(request.graph, RunContexts.of(request.home), COMMANDS)
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_job_def(request.experiment.name)
        assert job.execute_in_process(instance=instance).success


def computed(project, before, name):
    """Asset → names of the artifacts that were not in the store before."""
    new = project.artifacts() - before
    request = resolve_request(name, [])
    found = {}
    for node in request.graph.of(request.experiment.name):
        head = project.home.heads.read(node.key)
        names = {n for n, (kind, digest) in head.artifacts.items() if f"{kind}/{digest}" in new}
        if names:
            found[node.key] = names
    return found


def stages(kind, numbers=STAGES):
    return {f"toy/{kind}_{number:03d}": {"only"} for number in numbers}


def evaluations(numbers, datasets=("birds", "cats", "old")):
    return {f"toy/evaluation_{number:03d}": set(datasets) for number in numbers}


def edit(project, **changes):
    project.write("toy", **changes)


def concepts(order):
    return {"name": "toy", "concepts": [CONCEPTS[i] for i in order], "stages": 3}


CASES = {
    "nothing": (lambda project: None, {}),
    "a comment": (
        lambda project: (project.root / "experiments/toy.yaml").write_text(
            "# a comment\n" + (project.root / "experiments/toy.yaml").read_text()
        ),
        {},
    ),
    "workers, device and batch sizes of execution": (
        lambda project: edit(
            project,
            execution={"device": "auto", "evaluation_batch_size": 7, "resume_seconds": 0.5},
        ),
        {},
    ),
    "the folder of a dataset moves": (
        lambda project: (
            (project.root / "images").rename(project.root / "moved"),
            (project.root / "datasets/toy.yaml").write_text(
                (project.root / "datasets/toy.yaml").read_text().replace("/images/", "/moved/")
            ),
        ),
        {},
    ),
    "an evaluation dataset is added": (
        lambda project: (
            project.add_image("more", "test", "ant", 1005),
            project.add_image("more", "test", "bee", 1006),
            edit(
                project,
                evaluation={"held_out": ["old", "more"]},
                datasets={"more": {"source": {"type": "folder", "path": "../images/more"}}},
            ),
        ),
        {"shards/more": {"only"}} | evaluations((0, 1, 2, 3), ["more"]) | SUMMARY,
    ),
    "an image is added to training, in chunk 2": (
        lambda project: project.add_image("birds", "train", "crow", 1001),
        {"shards/birds": {"only"}, "streams/toy/chunk_001": {"only"}}
        | stages("trained") | evaluations(STAGES) | SUMMARY,
    ),
    "an image is added to a test split": (
        lambda project: project.add_image("birds", "test", "crow", 1002),
        {"shards/birds": {"only"}} | evaluations((0, 1, 2, 3), ["birds"]) | SUMMARY,
    ),
    "an image is touched": (
        lambda project: (project.root / "images/cats/train/lion/0.png").touch(),
        {},
    ),
    "the prompt of evaluation": (
        lambda project: edit(
            project, evaluation={"held_out": ["old"], "prompts": ["this is a {}", "one {}"]}
        ),
        evaluations((0, 1, 2, 3)) | SUMMARY,
    ),
    "the training texts": (
        lambda project: edit(project, training_texts=["a {}", "one {}"]),
        {f"streams/toy/chunk_{stage:03d}": {"only"} for stage in STAGES}
        | stages("trained") | evaluations(STAGES) | SUMMARY,
    ),
    "WaffleCLIP's prompts": (
        lambda project: edit(
            project, evaluation={"held_out": ["old"], "prompts": {"waffle": {"pairs": 2}}}
        ),
        evaluations((0, 1, 2, 3)) | SUMMARY,
    ),
    "a merge is added that training does not start from": (
        lambda project: edit(project, method={"merge": {"weight": 0.25}}),
        stages("deployed") | evaluations(STAGES) | SUMMARY,
    ),
    "the learning rate": (
        lambda project: edit(project, optimiser={"learning_rate": 5e-4}),
        stages("trained") | evaluations(STAGES) | SUMMARY,
    ),
    "the method": (
        lambda project: edit(project, method={"train": "locked_image"}),
        stages("trained") | evaluations(STAGES) | SUMMARY,
    ),
    "the mixture": (
        lambda project: edit(
            project, mixture={"update": 0.5, "buffer": 0.25, "pretraining": 0.25}
        ),
        stages("trained") | evaluations(STAGES) | SUMMARY,
    ),
    "the budget": (
        lambda project: edit(project, budget={"samples": 27}),
        stages("trained") | evaluations(STAGES) | SUMMARY,
    ),
    "the seed": (
        lambda project: edit(project, seed=1),
        stages("trained") | evaluations(STAGES) | SUMMARY,
    ),
    "the pretraining pool, which θ₀ was made from": (
        lambda project: project.add_image("old", "train", "red", 1003),
        {"shards/old": {"only"}, "pools/toy": {"only"}, "backbones/toy": {"only"}}
        | stages("trained") | evaluations((0, 1, 2, 3)) | SUMMARY,
    ),
    "the pretraining pool of replay alone": (
        lambda project: edit(
            project, pretraining_pool={"name": "other", "datasets": ["old", "cats"]}
        ),
        {"pools/other": {"only"}} | stages("trained") | evaluations(STAGES) | SUMMARY,
    ),
}  # fmt: skip
THROUGH = [through_fomo_run, through_dagster]


def by_turns(values):
    return [(value, THROUGH[number % 2]) for number, value in enumerate(values)]


@pytest.mark.parametrize(("case", "through"), by_turns(CASES))
def test_a_change_computes_what_it_touches_and_the_plan_says_so(finished_project, case, through):
    change, expected = CASES[case]
    before = finished_project.artifacts()
    change(finished_project)
    planned = {e.asset: set(e.compute) for e in resolve_request("toy", []).plan() if e.compute}
    assert planned == expected
    through("toy", [])
    assert computed(finished_project, before, "toy") == expected
    assert all(entry.current for entry in resolve_request("toy", []).plan())


@pytest.mark.parametrize(("first_changed", "through"), by_turns([1, 2, 3]))
def test_another_order_from_a_chunk_on_computes_from_there(
    finished_project, first_changed, through
):
    listed = [0, 1, 2, 3, 4, 5]
    finished_project.write("toy", stream=concepts(listed))
    through_fomo_run("toy", [])
    before = finished_project.artifacts()
    changed = listed[: 2 * first_changed - 2] + listed[2 * first_changed - 2 :][::-1]
    finished_project.write("toy", stream=concepts(changed))
    later = [stage for stage in STAGES if stage >= first_changed]
    chunks = {f"streams/toy/chunk_{stage:03d}": {"only"} for stage in later}
    expected = chunks | stages("trained", later) | evaluations(later) | SUMMARY
    expected |= {"streams/toy/order": {"only"}} if changed != listed else {}
    planned = {e.asset: set(e.compute) for e in resolve_request("toy", []).plan() if e.compute}
    assert planned == expected
    through("toy", [])
    assert computed(finished_project, before, "toy") == expected


def test_another_name_shares_everything(finished_project):
    before = finished_project.artifacts()
    finished_project.write("renamed")
    assert not any(
        e.compute for e in resolve_request("renamed", []).plan() if e.asset != "leaderboard"
    )
    run_experiment("renamed", [])
    assert {a.partition("/")[0] for a in finished_project.artifacts() - before} == {"leaderboard"}


def test_the_same_images_under_another_name_share_evaluations_too(finished_project):
    birds = {"source": {"type": "folder", "path": "../images/birds"}, "prompt": "a photo of a {}"}
    stream = {"name": "renamed", "datasets": ["robins", "cats"], "stages": 3}
    finished_project.write("other", datasets={"robins": birds}, stream=stream)
    run_experiment("other", [])
    ours, theirs = (
        finished_project.home.heads.read(f"{name}/evaluation_000").artifacts
        for name in ("other", "toy")
    )
    assert ours["robins"] == theirs["birds"]
    rows = query(
        finished_project.home.root,
        "SELECT experiment, dataset, value FROM evaluations WHERE stage = 0 AND metric = 'score'",
    )
    scores = {(experiment, dataset): value for experiment, dataset, value in rows.rows()}
    assert scores["other", "robins"] == scores["toy", "birds"]
    assert ("other", "birds") not in scores


def test_the_plan_gives_the_reason_of_a_changed_value(finished_project):
    planned = {e.asset: e for e in resolve_request("toy", ["optimiser.learning_rate=5e-4"]).plan()}
    assert planned["toy/trained_001"].reasons == ("optimiser.learning_rate 0.001 → 0.0005",)
    assert "it starts from other weights" in planned["toy/trained_002"].reasons
    assert planned["toy/evaluation_001"].reasons[0].endswith("the weights are others")
    assert planned["backbones/toy"].reasons == ()
    assert planned["toy/trained_001"].samples == 18
    assert planned["toy/trained_001"].estimated_seconds > 0


def test_the_plan_says_which_chunk_brings_other_samples(finished_project):
    finished_project.add_image("cats", "train", "lynx", 1004)
    planned = {e.asset: e for e in resolve_request("toy", []).plan()}
    assert planned["shards/cats"].reasons == ("its source brings other samples",)
    assert planned["toy/trained_003"].reasons == ("chunk 3 brings other samples",)


def test_the_plan_computes_and_writes_nothing(project):
    before = set(project.root.rglob("*"))
    entries = resolve_request("toy", []).plan()
    assert {e.reasons for e in entries} == {("never computed",)}
    new = set(project.root.rglob("*")) - before - {project.home.root}
    assert all(path.is_relative_to(project.home.cache) for path in new)


def test_a_machine_that_shares_the_store_computes_nothing_again(project, tmp_path, monkeypatch):
    monkeypatch.setenv("FOMO_STORE", f"file://{tmp_path / 'shared'}")
    run_experiment("toy", ["execution.resume_remote=true", "execution.resume_seconds=1e-9"])
    scores = project.home.heads.read("toy/scores").digest
    left = {path.relative_to(tmp_path / "shared") for path in tmp_path.glob("shared/.[!.]*/*")}
    # no claim, and no copy of a resume point
    assert {path for path in left if path.parts[0] != ".users"} == {Path(".claims/probe")}
    assert (tmp_path / "shared/.resume").is_dir()
    monkeypatch.setenv("FOMO_HOME", str(tmp_path / "other_machine"))
    planned = resolve_request("toy", []).plan()
    assert not any(entry.compute for entry in planned)
    assert not list(tmp_path.glob("other_machine/store/[!.]*"))  # nothing was fetched
    run_experiment("toy", [])
    heads = Home(tmp_path / "other_machine").heads
    assert heads.read("toy/scores").digest == scores
    assert {heads.read(entry.asset).status for entry in planned} == {"hit"}


def test_a_copy_of_a_resume_point_goes_though_its_maker_was_killed(project, tmp_path, monkeypatch):
    monkeypatch.setenv("FOMO_STORE", f"file://{tmp_path / 'shared'}")
    settings = ["execution.resume_remote=true", "execution.resume_seconds=1e-9"]
    run_experiment("toy", settings)
    (digest,) = [d for _, d in project.home.heads.read("toy/trained_001").artifacts.values()]
    (tmp_path / "resume.pt").write_bytes(b"a point")
    remote = Home.from_environment().store.remote
    remote.resume_copies(digest).push_last(tmp_path / "resume.pt", 3)
    project.home.heads.remove("toy/trained_001")  # killed between its artifact and this
    assert list(tmp_path.glob("shared/.resume/*/*.pt"))
    run_experiment("toy", settings)
    assert not list(tmp_path.glob("shared/.resume/*"))


def test_rows_that_were_deleted_are_written_again_and_nothing_is_computed(finished_project):
    before = finished_project.artifacts()
    tables = finished_project.home.root / "tables"
    lost = [path for path in tables.glob("*/**/*.parquet") if path.name != "empty.parquet"]
    content = {path: path.read_bytes() for path in lost}
    for path in lost:
        path.unlink()
    run_experiment("toy", [])
    assert {path: path.read_bytes() for path in lost} == content
    assert finished_project.artifacts() == before
