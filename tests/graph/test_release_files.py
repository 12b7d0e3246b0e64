"""The files of what is live: written when a name moves, or by the next run, and no more often than
another release or another form asks for."""

import shutil

import dagster as dg
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from assets.building import build_definitions
from assets.releasing import PUT_LIVE
from fomo_dagster.cli import planning
from fomo_dagster.cli.main import app
from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import COMMANDS
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.exporting import form
from fomo_dagster.exporting.forms.openclip import OpenClipForm
from fomo_dagster.exporting.forms.transformers import TransformersForm
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.graph.build.names import PROMOTE
from fomo_dagster.graph.nodes.release_files import ReleaseFilesNode
from fomo_dagster.graph.run.promotion import promote_stage
from fomo_dagster.graph.run.released import write_files
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.releases.files import released_files
from fomo_dagster.releases.records import ReleaseLog
from fomo_dagster.store.cleaning import clean
from resources.run_contexts import RunContexts
from tests.conftest import Project, enter

pytestmark = pytest.mark.slow

GATES = {"retention": {"no_worse_than": "live", "margin": 100}}
FORMS = ["card", "openclip"]


def release(*forms):
    return {"name": "shop", "gates": GATES, "forms": list(forms)}


def fomo(*arguments):
    done = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(autouse=True)
def _said_anew(monkeypatch):
    """What a process said before, it says again."""
    monkeypatch.setattr(planning, "_said", set())


@pytest.fixture(scope="module")
def judged(finished, tmp_path_factory):
    """A project whose stages were held against nothing; never changed, only copied."""
    root = tmp_path_factory.mktemp("judged") / "project"
    shutil.copytree(finished.root, root)
    made = enter(Project(root), monkeypatch := pytest.MonkeyPatch())
    made.write("toy", release=release(*FORMS))
    fomo("run", "toy")
    monkeypatch.undo()
    return made


@pytest.fixture
def waiting(judged, tmp_path, monkeypatch, plots):
    """A copy of it."""
    shutil.copytree(judged.root, tmp_path / "project")
    return enter(Project(tmp_path / "project"), monkeypatch)


def promote(stage, *options):
    return fomo("promote", "toy", "--stage", str(stage), *options)


@pytest.fixture
def live(waiting):
    """A project whose stage 1 is live."""
    promote(1, "--first")
    return waiting


def files(project, number=None):
    return released_files(project.home, "shop", number)


def written(project):
    """The artifacts of files that there are, with something live."""
    there = {one for one in project.artifacts() if one.startswith("release_files/")}
    store = project.home.store
    return {one for one in there if (store.folder(*one.split("/")) / "files").is_dir()}


def content(project, number=None):
    """File → checksum of the files of a release."""
    folder = files(project, number).folder
    kind, digest = folder.parts[-3:-1]
    manifest = project.home.store.open(kind, digest).manifest
    return {name: told["checksum"] for name, told in manifest["files"].items()}


def is_up_to_date():
    return all(entry.current for entry in resolve_request("toy", []).plan())


def test_where_nothing_is_live_there_are_no_files_and_no_error(waiting):
    assert waiting.home.heads.read("releases/shop/files") is not None
    assert files(waiting) is None
    assert written(waiting) == set()
    assert is_up_to_date()


def test_a_promotion_writes_the_forms_that_export_writes(waiting, tmp_path):
    said = promote(1, "--first").splitlines()
    assert said[0] == "release 1 (toy, stage 1) is live as shop"
    assert said[1].startswith("Note: the licence of ")
    assert "old (not declared)" in said[1]
    found = files(waiting)
    assert said[2] == f"its files are in {found.folder}"
    assert said[3].startswith("  openclip: openclip, features within ")
    assert said[4] == "  card: README.md"
    assert (found.number, found.forms) == (1, ("openclip", "card"))
    target = tmp_path / "exported"
    fomo("export", "toy", str(target), "--stage", "1", "--form", "openclip", "--form", "card")
    for name in ("README.md", "openclip/toy-stage-1.json", "openclip/toy-stage-1.safetensors"):
        assert (found.folder / name).read_bytes() == (target / name).read_bytes()
    head = waiting.home.heads.read("toy/trained_001")
    weights = waiting.home.store.open(*head.artifacts["only"]).path("weights.safetensors")
    own, deployed = load_file(found.folder / "openclip/toy-stage-1.safetensors"), load_file(weights)
    assert own.keys() == deployed.keys()
    assert all(torch.equal(own[name], value) for name, value in deployed.items())
    shown = fomo("run", "toy")  # which judges the other stages
    assert f"as openclip, card in {found.folder}" in shown
    assert len(written(waiting)) == 1
    assert is_up_to_date()


def test_files_follow_what_is_live_and_cleaned_ones_come_back_with_the_same_bytes(live):
    first = content(live)
    for stage in (2, 3):
        fomo("run", "toy")
        promote(stage)
        assert files(live).candidate.stage == stage
    assert len(written(live)) == 3
    assert content(live) != first
    last = written(live)
    fomo("rollback", "shop")  # to 2, whose files are there
    assert (files(live).number, written(live)) == (2, last)
    clean(live.home.root, live.home.store)
    assert files(live, 1) is None
    assert files(live, 3) is not None  # live before
    assert "its files are in" in fomo("rollback", "shop", "--to", "1")
    assert content(live) == first


def test_what_a_killed_promotion_left_unwritten_the_next_run_writes(waiting):
    promote_stage("toy", 1, first=True)  # and no more
    assert files(waiting) is None
    (entry,) = (e for e in resolve_request("toy", []).plan() if e.asset == "releases/shop/files")
    assert entry.compute == ("only",)
    fomo("run", "toy")
    assert files(waiting).number == 1
    assert is_up_to_date()


def test_files_that_were_written_and_not_recorded_are_recorded_by_the_next_run(
    waiting, monkeypatch
):
    with monkeypatch.context() as killed:
        killed.setattr(ReleaseFilesNode, "follow_up", lambda *_: iter(()))
        promote(1, "--first")
    assert len(written(waiting)) == 1
    assert files(waiting) is None
    fomo("run", "toy")
    assert files(waiting).number == 1
    assert len(written(waiting)) == 1


def test_a_failure_of_writing_undoes_no_promotion_and_is_told(waiting, monkeypatch):
    def fails(*_):
        raise DataError("features differ")

    with monkeypatch.context() as broken:
        broken.setattr(OpenClipForm, "write", fails)
        done = CliRunner().invoke(app, ["promote", "toy", "--stage", "1", "--first"])
        assert done.output.startswith("release 1 (toy, stage 1) is live as shop\n")
        assert done.exit_code == 1
        assert isinstance(done.exception, DataError)
        assert str(done.exception) == (
            "release 1 is live as shop, but its files are not written: features differ. `fomo run "
            "toy` tries again"
        )
        assert ReleaseLog(waiting.home, "shop").read().live == 1
        with pytest.raises(DataError, match=r"releases/shop/files: features differ"):
            fomo("run", "toy")
    fomo("run", "toy")
    assert files(waiting).number == 1


def test_other_forms_are_written_again_and_nothing_else_has_them_written(live):
    before = written(live)
    live.write("toy", release=release(*FORMS), description="told otherwise since")
    fomo("run", "toy")
    assert written(live) == before
    live.write("toy", release=release("card"))
    fomo("run", "toy")
    assert files(live).forms == ("card",)
    assert sorted(path.name for path in files(live).folder.iterdir()) == ["README.md"]
    live.write("toy", release=release(*FORMS))
    fomo("run", "toy")
    assert files(live).forms == ("openclip", "card")
    assert len(written(live)) == len(before) + 1  # those from before were found


def test_a_name_has_the_forms_that_any_of_its_experiments_asks_for(waiting):
    waiting.write("toy", release=release("card"))
    waiting.write("other", release=release("openclip"), seed=1)
    promote(1, "--first")
    assert files(waiting).forms == ("openclip", "card")


@pytest.fixture
def no_transformers(monkeypatch):
    """As of an architecture that transformers does not have."""

    def check(form, subject):
        raise InputError("it is a ResNet")

    monkeypatch.setattr(TransformersForm, "check", check)


def test_a_form_that_only_another_experiment_asks_for_stops_no_other(
    waiting, no_transformers, caplog
):
    waiting.write("other", release=release("transformers"), seed=1)
    promote(1, "--first")
    assert caplog.messages == [
        "toy, stage 1, is not written as transformers, for which other asks: it is a ResNet"
    ]
    assert files(waiting).forms == ("openclip", "card")
    assert not (files(waiting).folder / "transformers").exists()
    fomo("run", "toy")
    assert is_up_to_date()
    assert len(written(waiting)) == 1


def test_a_promotion_is_refused_if_a_form_of_its_experiment_cannot_be_written(
    waiting, no_transformers
):
    waiting.write("toy", release=release("transformers", "card"))
    done = CliRunner().invoke(app, ["promote", "toy", "--stage", "1", "--first"])
    assert isinstance(done.exception, InputError)
    assert str(done.exception) == (
        "toy, stage 1, cannot be written as transformers, for which `release.forms` of toy asks: "
        "it is a ResNet. Take transformers out of it"
    )
    assert ReleaseLog(waiting.home, "shop").read().records == ()


def test_a_release_that_can_have_no_form_has_no_files_to_copy(waiting, no_transformers, tmp_path):
    waiting.write("toy", release=release())
    waiting.write("other", release=release("transformers"), seed=1)
    promote(1, "--first")
    assert files(waiting).forms == ()
    done = CliRunner().invoke(app, ["releases", "shop", "--files", str(tmp_path / "copy")])
    assert "can have none of the forms that `release.forms` asks for" in str(done.exception)
    assert not (tmp_path / "copy").exists()


def test_files_are_held_against_the_samples_of_the_release_or_not_written(live):
    prompts = {"held_out": ["old"], "prompts": ["a {}"]}
    live.write("toy", release=release(*FORMS), evaluation=prompts)
    fomo("run", "toy")  # what is there stays
    assert files(live).forms == ("openclip", "card")
    live.write("toy", release=release("card"), evaluation=prompts)
    with pytest.raises(InputError, match=r"\(toy, stage 1\), which are not there.*toy evaluates "):
        fomo("run", "toy")


def test_forms_that_cannot_be_written_are_refused_before_anything_runs(project, monkeypatch):
    project.write("toy", release=release("onxx"))
    with pytest.raises(InputError, match=r"release.forms: .*'onxx': did you mean 'onnx'"):
        resolve_request("toy", [])
    project.write("toy", release=release("onnx", "card"))
    monkeypatch.setattr(form, "find_spec", lambda name: None if name == "onnx" else True)
    with pytest.raises(InputError, match=r"onnx needs onnx: pip install 'fomo-dagster\[onnx\]'"):
        fomo("run", "toy")
    assert project.artifacts() == set()


def test_dagsters_job_writes_the_files_and_shows_them(waiting):
    definitions = build_definitions(
        build_project(waiting.root), RunContexts.of(waiting.home), COMMANDS
    )
    config = {"experiment": "toy", "stage": 1, "first": True}
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_job_def(PROMOTE)
        assert job.execute_in_process(
            {"ops": {PUT_LIVE: {"config": config}}}, instance=instance
        ).success
        key = dg.AssetKey(["releases", "shop", "files"])
        event = instance.get_latest_materialization_event(key).asset_materialization
        name = instance.get_latest_materialization_event(dg.AssetKey(["releases", "shop"]))
    assert event.metadata["live"].value == "release 1 (toy, stage 1)"
    assert event.metadata["forms"].value == "openclip, card"
    assert event.metadata["files"].value == str(files(waiting).folder)
    head = waiting.home.heads.read("releases/shop/files")
    assert event.tags["dagster/data_version"] == head.data_version
    assert "not declared" in name.asset_materialization.metadata["licences"].value


def test_onnx_of_a_release_is_the_same_whenever_it_is_written(waiting):
    waiting.write("toy", release=release("onnx", "onnx_int8"))
    said = promote(1, "--first")
    assert "features within" in said
    assert "  KA " in said
    first = content(waiting)
    head = waiting.home.heads.read("releases/shop/files")
    waiting.home.store.retire(*head.artifacts["only"])
    fomo("run", "toy")
    assert content(waiting) == first


def test_weights_that_are_gone_are_named(live):
    live.write("toy", release=release("card"))
    live.home.store.retire(*files(live).candidate.weights)
    record = ReleaseLog(live.home, "shop").read().records[0]
    said = "release 1 is live as shop, but its files are not written: .* no longer in the store"
    with pytest.raises(InputError, match=said):
        write_files(record, RunContext(build_project(live.root), live.home))
