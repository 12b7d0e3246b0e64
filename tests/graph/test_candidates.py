"""Stages up for release: held against what is live, put live or refused, and judged again only
where something changed."""

import shutil

import dagster as dg
import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from assets.building import build_definitions
from assets.releasing import GO_BACK, PUT_LIVE
from fomo_dagster.cli import planning
from fomo_dagster.cli.main import app
from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import COMMANDS
from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.evaluation import latency
from fomo_dagster.graph.build.builder import build_graph, build_project
from fomo_dagster.graph.build.names import PROMOTE, ROLL_BACK
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.nodes.candidate import CandidateNode
from fomo_dagster.graph.run.devices import Lending
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.run.tasks import Task, as_data
from fomo_dagster.graph.work.checkpoints import WEIGHTS
from fomo_dagster.models.operations import of_encoding
from fomo_dagster.releases.records import ReleaseLog
from fomo_dagster.tables.views import query
from resources.run_contexts import RunContexts
from tests.conftest import EXPERIMENT, Project, enter

pytestmark = pytest.mark.slow

PASSES = {"retention": {"no_worse_than": "live", "margin": 100}}
FAILS = {"knowledge": {"at_least": 100}}
FAILS_SPEED = {"speed": {"latency_ratio_at_most": 1e-6}}
PROMPTS = {"held_out": ["old"], "prompts": ["a {}"]}


def release(gates, approval="automatic"):
    return {"name": "shop", "gates": gates, "approval": approval}


def fomo(*arguments):
    return CliRunner().invoke(app, [*arguments], catch_exceptions=False)


@pytest.fixture(autouse=True)
def _said_anew(monkeypatch):
    """What a process said before, it says again."""
    monkeypatch.setattr(planning, "_said", set())


def run(project, name="toy"):
    """Run it; the names of artifacts that were made, by kind, and what was printed."""
    before = project.artifacts()
    done = fomo("run", name)
    assert done.exit_code == 0, done.output
    made = project.artifacts() - before
    return sorted(kind for one in made if (kind := one.split("/")[0]) != "release"), done.output


def history(project):
    return ReleaseLog(project.home, "shop").read()


@pytest.fixture(scope="module")
def judged(finished, tmp_path_factory):
    """A project whose stages were held against nothing; never changed, only copied."""
    root = tmp_path_factory.mktemp("judged") / "project"
    shutil.copytree(finished.root, root)
    made = enter(Project(root), monkeypatch := pytest.MonkeyPatch())
    monkeypatch.setattr(planning, "_said", set())
    made.write("toy", release=release(PASSES))
    kinds, output = run(made)
    assert kinds == ["candidate"] * 4
    assert output.count("nothing is live as shop yet: `fomo promote toy --first`") == 1
    monkeypatch.undo()
    return made


@pytest.fixture
def waiting(judged, tmp_path, monkeypatch, plots):
    """A copy of it."""
    shutil.copytree(judged.root, tmp_path / "project")
    return enter(Project(tmp_path / "project"), monkeypatch)


@pytest.fixture
def live(waiting):
    """A project whose stage 1 is live, and whose later stages would pass."""
    done = fomo("promote", "toy", "--stage", "1", "--first", "--reason", "the one of the old site")
    assert done.output.split("\n")[0] == "release 1 (toy, stage 1) is live as shop"
    return waiting


def test_stages_that_pass_go_live_one_after_the_other(live):
    made, output = run(live)
    assert "live    release 3 (toy, stage 3)   (fomo releases shop)" in output
    assert made == ["candidate"] * 2  # of stages 2 and 3; what is live was evaluated already
    records = history(live).records
    assert [(r.kind, r.live, r.reference, r.candidate.stage) for r in records] == [
        ("release", 1, None, 1), ("release", 2, 1, 2), ("release", 3, 2, 3),
    ]  # fmt: skip
    assert records[2].approval == "automatic"
    lineage = records[2].candidate.lineage
    assert list(lineage)[-1] == "toy/trained_003"
    for asset in ("backbones/toy", "toy/trained_001", "streams/toy/chunk_003", "pools/toy"):
        assert lineage[asset] == live.home.heads.read(asset).data_version
    scores = query(live.home.root, "SELECT knowledge_accumulation FROM scores WHERE stage = 3")
    assert records[2].candidate.scores["knowledge_accumulation"] == scores.item()
    gates = query(live.home.root, "SELECT stage, reference, passed FROM gates ORDER BY stage")
    assert gates.rows() == [(0, None, False), (1, None, False), (2, 1, True), (3, 2, True)]
    assert all(not entry.compute and entry.current for entry in resolve_request("toy", []).plan())


def test_what_is_live_or_was_before_or_has_an_alias_is_not_packed(live):
    live.write("toy", release=release(PASSES), retention={"pack": True})
    run(live)  # stages 2 and 3 go live, after 1
    addresses = [live.home.heads.read(f"toy/trained_00{n}").artifacts["only"] for n in (1, 2, 3)]

    def is_packed():
        return [live.home.store.places.is_packed(*address) for address in addresses]

    assert is_packed() == [True, False, False]
    assert fomo("rollback", "shop", "--to", "1").exit_code == 0
    run(live)
    assert is_packed() == [False, True, False]  # 3 was live before
    assert fomo("alias", "shop", "stable", "2").exit_code == 0
    assert live.home.store.open(*addresses[1]) is not None
    run(live)
    assert is_packed() == [False, False, False]


def test_judging_waits_for_no_device(live, monkeypatch):
    def refused(self, needs, *rest):
        assert not needs.devices
        return lend(self, needs, *rest)

    lend = Lending.lend
    monkeypatch.setattr(Lending, "lend", refused)
    assert run(live)[0] == ["candidate"] * 2
    assert history(live).live == 3


def declare_gallery(project, **declared):
    path = project.root / "galleries/pets.yaml"
    path.parent.mkdir(exist_ok=True)
    what = {"dataset": "birds", "release": "shop", "follows": "kept", "drift": {"samples": 24}}
    path.write_text(yaml.safe_dump({**what, **declared}))


def of_galleries(least):
    return release({"galleries": {"recall_compensated_at_least": least}})


def test_a_gallery_that_stays_must_still_be_found(live):
    declare_gallery(live)
    live.write("toy", release=of_galleries(0))
    _, output = run(live)
    assert "galleries/pets recall_compensated: it is not embedded yet" in " ".join(output.split())
    assert history(live).live == 1
    assert fomo("alias", "shop", "kept", "1").exit_code == 0
    run(live, "galleries/pets")
    made, output = run(live)
    assert history(live).live == 3
    assert made == ["candidate", "candidate", "gallery_drift", "gallery_drift"]  # stages 2 and 3
    sql = "SELECT stage, estimate, samples FROM gates WHERE gate LIKE 'galleries: %pets %'"
    judged = query(live.home.root, f"{sql} AND stage = 3")
    sql = "SELECT value, samples, live FROM gallery_drift WHERE metric = 'recall_compensated'"
    shown = query(live.home.root, sql)
    assert judged.row(0)[1:] == shown.row(0)[:2]
    assert shown["live"].item() == 3
    assert all(not entry.compute and entry.current for entry in resolve_request("toy", []).plan())
    assert fomo("alias", "shop", "kept", "3", "--move").exit_code == 0
    run(live, "galleries/pets")
    assert run(live)[0] == []  # what was released keeps its verdict


def test_a_gallery_that_was_made_empty_is_not_embedded_yet(live):
    declare_gallery(live)
    run(live, "galleries/pets")  # nothing is called kept
    live.write("toy", release=of_galleries(0))
    _, output = run(live)
    assert "galleries/pets recall_compensated: it is not embedded yet" in " ".join(output.split())


def test_a_stage_that_waits_for_its_gallery_gate_is_put_live(live):
    declare_gallery(live)
    assert fomo("alias", "shop", "kept", "1").exit_code == 0
    run(live, "galleries/pets")
    gates = {"galleries": {"recall_compensated_at_least": 0}}
    live.write("toy", release=release(gates, "manual"))
    run(live)
    assert history(live).live == 1
    done = fomo("promote", "toy")
    assert done.exit_code == 0, done.output
    assert history(live).release(2).candidate.stage == 3


def test_a_gate_that_is_added_later_measures_what_was_released(live):
    run(live)  # stages 2 and 3 go live
    declare_gallery(live)
    assert fomo("alias", "shop", "kept", "1").exit_code == 0
    run(live, "galleries/pets")
    live.write("toy", release=of_galleries(0))
    run(live)
    sql = "SELECT stage, passed, said FROM gates WHERE gate LIKE 'galleries: %' ORDER BY stage"
    judged = query(live.home.root, sql)
    assert judged["passed"].to_list() == [True] * 4
    assert "embedded by these very weights" in judged["said"][1]
    assert run(live)[0] == []


def test_a_gallery_of_other_images_by_now_refuses_until_it_is_embedded(live):
    declare_gallery(live)
    assert fomo("alias", "shop", "kept", "1").exit_code == 0
    run(live, "galleries/pets")
    declare_gallery(live, dataset="cats")
    live.write("toy", release=of_galleries(0))
    _, output = run(live)
    assert "or none that its dataset still has" in " ".join(output.split())
    assert history(live).live == 3  # the same run embeds it, and judges again


def test_a_process_that_measures_a_gallery_is_told_of_it(live):
    declare_gallery(live)
    assert fomo("alias", "shop", "kept", "1").exit_code == 0
    run(live, "galleries/pets")
    live.write("toy", release=of_galleries(0))
    context = RunContext(build_project(live.root), live.home)
    node = context.graph.nodes["toy/candidate_002"]
    recipes = node.recipes(node.input_facts(context))
    told = Task(
        declared=as_data(context.graph.owners[node.key]),
        galleries=[as_data(gallery) for gallery in node.galleries], home=live.home, key=node.key,
        digests={name: recipe.digest for name, recipe in recipes.items()}, folder=None, threads=1,
        sharing=1, processes=1, host="here", tells_steps=False,
    )  # fmt: skip
    read = Task.model_validate_json(told.model_dump_json())
    graph = read.graph()
    assert read.recipes(graph.nodes[node.key], RunContext(graph, live.home)) == recipes
    assert "galleries/pets" in recipes


def test_a_gallery_that_is_found_no_more_refuses_a_stage(live):
    declare_gallery(live)
    assert fomo("alias", "shop", "kept", "1").exit_code == 0
    run(live, "galleries/pets")
    live.write("toy", release=of_galleries(1))
    _, output = run(live)
    assert history(live).live == 1
    assert "galleries/pets recall_compensated" in output
    live.write("toy", release=release({"galleries": {"cosine_at_least": -1}}))
    run(live)
    assert history(live).live == 3


def test_a_gate_on_galleries_that_are_not_declared_is_refused(live):
    live.write("toy", release=of_galleries(0))
    with pytest.raises(InputError, match="galleries is about galleries of shop with"):
        fomo("run", "toy")


def test_a_rollback_has_nothing_judged_again(live):
    run(live)
    assert "release 2 (" not in fomo("rollback", "shop", "--reason", "slow").output
    assert history(live).live == 2
    assert run(live)[0] == []
    assert history(live).live == 2
    shown = fomo("releases", "shop").output
    assert "back to release 2" in shown
    assert "slow" in shown
    assert "live: release 2 (toy, stage 2)" in shown
    assert "previous: release 3 (toy, stage 3)" in shown


def test_what_fails_a_gate_is_refused_with_the_reason_and_training_goes_on(live):
    live.write("toy", release=release(PASSES | FAILS))
    _, output = run(live)
    assert "toy, stage 3, is refused as shop: KA " in output
    records = history(live).records
    assert [(r.kind, r.live) for r in records] == [("release", 1)] + [("refusal", 1)] * 2
    assert [one.passed for one in records[1].gates] == [False, True]
    assert "KA" in fomo("releases", "shop").output
    run(live)
    assert len(history(live).records) == 3  # nothing is said twice
    with pytest.raises(InputError, match="does not pass the gates of shop: knowledge: KA"):
        fomo("promote", "toy")


@pytest.mark.parametrize("gates", [PASSES, PASSES | FAILS])
def test_what_a_killed_process_did_not_decide_the_next_run_does(live, monkeypatch, gates):
    live.write("toy", release=release(gates))
    with monkeypatch.context() as killed:
        killed.setattr(CandidateNode, "follow_up", lambda *_: iter(()))
        with pytest.raises(StoreError, match=r"still out of date.*toy/candidate_002"):
            fomo("run", "toy")
    assert len(history(live).records) == 1
    run(live)
    kinds = [record.kind for record in history(live).records]
    assert kinds == ["release", *(["release"] * 2 if gates == PASSES else ["refusal"] * 2)]
    assert all(entry.current for entry in resolve_request("toy", []).plan())


def test_with_manual_approval_a_stage_waits(live):
    live.write("toy", release=release(PASSES, "manual"))
    stream = {"name": "longer", "datasets": ["birds", "cats"], "stages": 5}
    live.write("longer", release=release(PASSES, "manual"), stream=stream)
    assert "stage 3 passes all gates: `fomo promote toy` puts it live" in run(live)[1]
    assert history(live).live == 1
    assert fomo("promote", "toy").exit_code == 0
    assert (history(live).live, history(live).records[-1].candidate.stage) == (2, 3)
    with pytest.raises(InputError, match="last judged when nothing was live, and release 2 is liv"):
        fomo("promote", "toy", "--stage", "0")
    with pytest.raises(InputError, match="stage 2, came before one that was released, and is judg"):
        fomo("promote", "toy", "--stage", "2")


def test_an_experiment_that_was_changed_is_judged_anew(live):
    run(live)
    assert history(live).live == 3
    live.write("toy", release=release(PASSES), seed=1)
    run(live)
    assert [record.candidate.stage for record in history(live).records[3:]] == [1, 2, 3]
    assert history(live).live == 6
    assert history(live).live_candidate.checkpoint != history(live).releases[3].candidate.checkpoint
    assert run(live)[0] == []


def test_what_is_live_is_evaluated_as_the_candidate_is(live):
    live.write("other", release=release(PASSES), evaluation=PROMPTS, seed=1)
    made, _ = run(live, "other")
    # Of stages 0 to 3, where θ₀'s weights are toy's: 4 × 3, and then what was live: toy's stage 1,
    # and no other, since each stage that passes is live from then on and was evaluated.
    assert made.count("evaluation") == 4 * 3 + 3
    stages = [(one.candidate.experiment, one.candidate.stage) for one in history(live).records]
    assert stages == [("toy", 1), ("other", 1), ("other", 2), ("other", 3)]  # θ₀ is no update
    rows = query(live.home.root, "SELECT bool_and(passed) FROM gates WHERE experiment = 'other'")
    assert rows.rows() == [(True,)]
    assert all(entry.current for entry in resolve_request("other", []).plan())


def test_a_stage_that_brings_test_images_is_refused(live):
    """The toy's pictures are a rectangle on a ground, which are all alike to a hash."""
    live.write("toy", release=release(PASSES | {"data": {"near_duplicates_at_most": 1}}))
    made, _ = run(live)
    assert set(made) == {"candidate", "hashes", "near_duplicates", "chunk_hashes"}
    assert history(live).live == 1
    refusal = history(live).records[-1]
    said = {one.gate: (one.passed, one.said) for one in refusal.gates}
    assert said["data: near duplicates"][0]
    passed, sentence = said["data: leakage"]
    assert not passed
    assert " of a test image, such as " in sentence
    assert "; stage 2, which its weights learnt from: " in sentence
    assert query(live.home.root, "SELECT count(*) FROM near_duplicates").item() > 0
    assert run(live)[0] == []


def test_what_a_stage_costs_is_counted_against_what_is_live(live, small_backbone):
    gates = PASSES | {"cost": {"flops_ratio_at_most": 100, "parameters_ratio_at_most": 0.4}}
    live.write("small", release=release(gates), backbone=small_backbone)
    run(live, "small")
    assert history(live).live == 1
    found = {one.gate: one for one in history(live).records[-1].gates}
    own, other = (of_encoding(b["architecture"]) for b in (small_backbone, EXPERIMENT["backbone"]))
    image, parameters = (
        found[f"cost: {name}"] for name in ("operations of an image", "parameters")
    )
    assert image.passed
    assert image.estimate == pytest.approx(100 * own.flops_per_image / other.flops_per_image)
    assert not parameters.passed
    assert parameters.estimate == pytest.approx(100 * own.parameters / other.parameters)
    live.write("toy", release=release(PASSES | {"cost": {"flops_ratio_at_most": 1}}))
    run(live)
    assert history(live).live == 3
    assert "the architecture is the same" in history(live).records[-1].gates[-1].said


def test_how_long_a_stage_takes_is_timed_once_where_its_architecture_is_another(
    live, small_backbone, monkeypatch
):
    monkeypatch.setattr(latency, "MOST", latency.LEAST)
    gates = PASSES | {"speed": {"latency_ratio_at_most": 1000}}
    live.write("small", release=release(gates, "manual"), backbone=small_backbone)
    made, _ = run(live, "small")
    assert made.count("latencies") == 1  # for all stages
    told = query(
        live.home.root,
        "SELECT gate, passed, samples FROM gates WHERE stage = 3 AND gate LIKE 'speed%' ORDER BY 1",
    ).rows()
    assert [one[:2] for one in told] == [
        ("speed: latency of images", True), ("speed: latency of texts", True)
    ]  # fmt: skip
    assert all(samples >= 20 for *_, samples in told)
    live.write("small", release=release(PASSES | FAILS_SPEED), backbone=small_backbone)
    made, _ = run(live, "small")
    assert set(made) == {"candidate"}  # judged anew, by what was timed
    refusal = history(live).records[-1]
    assert refusal.kind == "refusal"
    assert "latency of images" in refusal.gates[-2].said


def test_weights_of_a_release_are_had_though_its_stage_is_gone(live, tmp_path):
    was = load_file(live.home.store.open(*history(live).live_candidate.weights).path(WEIGHTS))
    pets = {"name": "pets", "datasets": ["birds", "cats"], "order": "dataset_incremental"}
    live.write("toy", release=release(PASSES), stream=pets, seed=3)
    with pytest.raises(InputError, match="stages 0 to 2, and no stage 3; of what was released"):
        fomo("export", "toy", str(tmp_path / "gone.pt"), "--stage", "3")
    path = tmp_path / "model.safetensors"
    told = fomo("releases", "shop", "--number", "1", "--files", str(path)).output
    assert told.startswith("release 1 (toy, stage 1) of shop: open_clip.add_model_config(")
    written = load_file(path)
    assert all(torch.equal(was[name], weight) for name, weight in written.items())
    assert path.with_suffix(".json").exists()
    with pytest.raises(InputError, match="shop has no release 2: there are 1 to 1"):
        fomo("releases", "shop", "--number", "2", "--files", str(path))


@pytest.fixture
def following(waiting):
    """A project whose θ₀ is live."""
    assert fomo("promote", "toy", "--stage", "0", "--first").exit_code == 0
    return waiting


def starts(project, name):
    heads = [project.home.heads.read(f"{name}/start_{stage:03d}") for stage in (1, 2, 3)]
    return [head.facts.get("number") for head in heads]


def updates(project, kind):
    """Of the records of a kind, of how many trainings the weights come."""
    records = [one for one in history(project).records if one.kind == kind]
    return [one.candidate.provenance.updates for one in records]


def repeated_from(project):
    """How many earlier chunks each stage's samples are held against."""
    heads = [project.home.heads.read(f"next/near_duplicates_{stage:03d}") for stage in (1, 2, 3)]
    return [len(head.recipes[ONLY]["inputs"]["earlier"]) for head in heads]


def test_stages_that_go_live_are_started_from_as_in_a_chain(following):
    following.write("next", release=release(PASSES), method={"start_from": "live"},
                    near_duplicates={})  # fmt: skip
    made, _ = run(following, "next")
    assert starts(following, "next") == [1, 2, 3]
    assert following.home.heads.read("next/start_003").facts["learnt"] == [1, 2]
    assert "trained" not in made  # they are toy's
    assert repeated_from(following) == [0, 1, 2]
    assert history(following).live == 4
    assert updates(following, "release") == [0, 1, 2, 3]


def test_nothing_starts_from_a_stage_that_was_refused(following):
    following.write("next", release=release(PASSES | FAILS), method={"start_from": "live"},
                    near_duplicates={})  # fmt: skip
    made, _ = run(following, "next")
    assert starts(following, "next") == [1, 1, 1]
    assert repeated_from(following) == [0, 0, 0]  # what was refused may come again, corrected
    assert made.count("trained") == 2  # stages 2 and 3, from θ₀
    assert updates(following, "refusal") == [1, 1, 1]
    for stage in (2, 3):  # nor with what it brought
        (recipe,) = following.home.heads.read(f"next/trained_{stage:03d}").recipes.values()
        assert "buffer" not in recipe["inputs"]
    following.write("toy", release=release(PASSES))
    assert fomo("run", "toy").exit_code == 0
    assert history(following).live == 4
    made, _ = run(following, "next")  # which is held against that, and trained from what it was
    assert set(made) == {"candidate"}
    assert starts(following, "next") == [1, 1, 1]


@pytest.mark.parametrize("is_there", [True, False])
def test_what_a_release_learnt_stays_known_though_its_chunk_changed(live, is_there):
    released = history(live).live_candidate
    concepts = live.home.heads.read("streams/toy/chunk_001").facts["concepts"]
    live.add_image(concepts[0][0], "train", concepts[0][1], 999)
    if not is_there:  # its chunk was cleaned since: nobody can tell which samples it had
        live.home.store.retire("chunk", released.lineage["streams/toy/chunk_001"])
    live.write("next", release=release(PASSES | FAILS), method={"start_from": "live"},
               near_duplicates={})  # fmt: skip
    run(live, "next")
    assert starts(live, "next") == [1, 1, 1]
    learnt = [live.home.heads.read(f"next/start_{stage:03d}").facts["learnt"] for stage in (2, 3)]
    assert learnt == [[1], [1]]
    assert repeated_from(live) == [0, 1, 1]
    (recipe,) = live.home.heads.read("next/trained_003").recipes.values()
    assert len(recipe["inputs"]["buffer"]) == 1
    last = history(live).records[-1].candidate
    assert last.stage == 3
    assert set(released.lineage.values()) <= set(last.lineage.values())
    assert last.lineage["streams/toy/chunk_001"] not in released.lineage.values()
    assert last.lineage["toy/trained_001"] == released.checkpoint
    assert last.provenance.updates == 2
    samples = sum(one.samples for one in last.provenance.data if one.use == "update")
    # Stage 1 brought 8 and then one more, which was replayed, and stage 3 brought 8.
    assert samples == (8 + 1 + 8 if is_there else 8 + 9 + 8)


def test_a_stage_that_brings_something_else_now_starts_from_what_is_live(live, caplog):
    """As where an earlier arrival was removed, so that each later one has another number."""
    method, passes = {"start_from": "live"}, release(PASSES)
    datasets = {"name": "pets", "datasets": ["birds", "cats"], "order": "dataset_incremental"}
    live.write("next", release=passes, method=method, stream=datasets)
    run(live, "next")
    assert [live.home.heads.read(f"next/start_00{n}").facts["number"] for n in (1, 2)] == [1, 2]
    last = history(live).live
    assert last == 3
    live.write("next", release=passes, method=method, stream=datasets | {"datasets": ["cats"]})
    run(live, "next")
    assert live.home.heads.read("next/start_001").facts["number"] == last  # it was 1 for birds
    assert live.home.heads.read("next/start_001").facts["brings"] == [
        ["cats", "lion"], ["cats", "lynx"]
    ]  # fmt: skip
    assert f"stage 1 of next starts from release {last}, which is live as shop" in caplog.text
    live.add_image("cats", "train", "lion", 998)  # more of the same changes no start
    run(live, "next")
    assert live.home.heads.read("next/start_001").facts["number"] == last


def test_another_home_starts_from_what_the_first_one_did(live, tmp_path, monkeypatch):
    def share():
        monkeypatch.setenv("FOMO_STORE", (tmp_path / "remote").as_uri())

    live.write("next", release=release(PASSES), method={"start_from": "live"})
    share()
    run(live, "next")
    assert fomo("store", "push").exit_code == 0
    first = starts(live, "next")
    assert len(set(first)) > 1
    other = Project(tmp_path / "other")
    shutil.copytree(live.root, other.root, ignore=shutil.ignore_patterns(".fomo"))
    enter(other, monkeypatch)
    share()
    assert fomo("releases", "shop", "--join").exit_code == 0
    entries = resolve_request("next", []).plan()
    assert not any(one.compute for one in entries if one.kind in ("trained", "live_start"))
    run(other, "next")
    assert starts(other, "next") == first
    assert history(other).live == history(live).live


def test_a_start_of_another_architecture_is_not_stayed_with(live, small_backbone):
    method = {"start_from": "live"}
    live.write("next", release=release(PASSES | FAILS), method=method)
    run(live, "next")
    live.write("next", release=release(PASSES | FAILS), method=method, backbone=small_backbone)
    with pytest.raises(InputError, match="which is of another architecture than its backbone"):
        fomo("plan", "next")


def test_a_plan_says_what_a_stage_will_start_from(following, caplog):
    following.write("next", release=release(PASSES), method={"start_from": "live"})
    assert "next/candidate_000 is computed first" in fomo("plan", "next").output
    said = [message for message in caplog.messages if "starts from release 1, which is" in message]
    assert [message.split(" of next ")[0] for message in said] == ["stage 1", "stage 2", "stage 3"]


def test_what_is_live_must_be_of_the_same_architecture(following, small_backbone):
    method = {"start_from": "live"}
    following.write("next", release=release(PASSES), method=method, backbone=small_backbone)
    with pytest.raises(InputError, match="which is of another architecture than its backbone"):
        fomo("plan", "next")


def test_to_start_from_what_is_live_takes_a_name(project):
    project.write("toy", method={"start_from": "live"})
    with pytest.raises(InputError, match="start_from is live, and there is no release"):
        project.load()


def test_dagster_shows_each_gate_as_a_check_and_goes_on(live):
    live.write("toy", release=release(PASSES | FAILS))
    request = resolve_request("toy", [])
    definitions = build_definitions(request.graph, RunContexts.of(request.home), COMMANDS)
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_job_def("toy")
        result = job.execute_in_process(instance=instance)
    assert result.success
    checks = {
        (e.asset_key.path[-1], e.check_name): e.passed
        for e in result.get_asset_check_evaluations()
        if e.check_name.startswith("gate_")
    }
    assert checks["candidate_003", "gate_retention"]
    assert not checks["candidate_003", "gate_knowledge"]


def test_dagsters_jobs_put_live_and_go_back(live):
    live.write("toy", release=release(PASSES, "manual"))
    run(live)
    request = resolve_request("toy", [])
    definitions = build_definitions(request.graph, RunContexts.of(request.home), COMMANDS)
    with dg.DagsterInstance.ephemeral() as instance:

        def execute(job, op, **config):
            found = definitions.resolve_job_def(job)
            run_config = {"ops": {op: {"config": config}}}
            result = found.execute_in_process(run_config, instance=instance, raise_on_error=False)
            return result.success

        assert execute(PROMOTE, PUT_LIVE, experiment="toy", stage=3, reason="by hand")
        assert history(live).live == 2
        assert not execute(PROMOTE, PUT_LIVE, experiment="toy", stage=3)  # it is live
        assert execute(ROLL_BACK, GO_BACK, name="shop")
        assert history(live).live == 1
        key = dg.AssetKey(["releases", "shop"])
        shown = instance.get_latest_materialization_event(key).asset_materialization.metadata
    assert shown["live"].value == "release 1 (toy, stage 1)"
    assert shown["previous"].value == "release 2 (toy, stage 3)"
    assert [record.reason for record in history(live).records][1:] == ["by hand", ""]


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ({"protected": {"datasets": ["bird"]}}, "the dataset 'bird', which is not evaluated: did"),
        ({"protected": {"concepts": ["robyn"]}}, "the concept 'robyn'.*did you mean 'robin'"),
    ],
)
def test_gates_on_what_is_not_evaluated_are_refused_before_anything_runs(project, gates, said):
    project.write("toy", release=release(gates))
    with pytest.raises(InputError, match=said):
        resolve_request("toy", []).plan()


def test_a_gate_on_datasets_that_are_not_there_is_refused(project):
    project.write("toy", release=release(PASSES), evaluation={})
    with pytest.raises(InputError, match=r"gates.retention is about held_out datasets, and none"):
        build_graph([project.load()])


def test_without_a_release_nothing_can_be_promoted(finished_project):
    with pytest.raises(InputError, match="toy has no `release`"):
        fomo("promote", "toy")
    with pytest.raises(InputError, match=r"nothing was released as 'shop' yet: .fomo promote EXP"):
        fomo("rollback", "shop")
    assert fomo("releases").output.startswith("nothing is live yet")
