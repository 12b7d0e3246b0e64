"""What is wrong with one experiment is shown in its place, and leaves all others alone."""

import os
import shutil

import dagster as dg
import pytest
import yaml
from typer.testing import CliRunner

from assets.building import build_definitions
from fomo_dagster.cli.main import app
from fomo_dagster.cli.planning import _said
from fomo_dagster.cli.running import COMMANDS
from fomo_dagster.experiment import experiment_sets as experiment_sets
from fomo_dagster.graph.build.builder import build_project
from resources.run_contexts import RunContexts

TOY = {"stream": {"name": "toy", "datasets": ["birds", "cats"], "stages": 3}}


@pytest.fixture(autouse=True)
def nothing_was_said():
    _said.clear()


def definitions_of(project):
    return build_definitions(build_project(project.root), RunContexts.of(project.home), COMMANDS)


def groups(definitions):
    found = {}
    for spec in definitions.resolve_all_asset_specs():
        found.setdefault(spec.group_name, {})[spec.key.to_user_string()] = spec.description
    return found


def text(project, name, content):
    path = project.root / "experiments" / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def link(project, name, target):
    (project.root / "experiments" / name).symlink_to(target)


def spoil_dataset(project, content):
    (project.root / "datasets" / "more.yaml").write_text(content)


def arrive(project, name):
    folder = project.root / "incoming"
    (folder / name / "ant").mkdir(parents=True)
    project.write("bad", stream={"name": "live", "growing": "../incoming"})


def named(project, name):
    text(project, "bad.yaml", f"extends: toy\nname: {name}\n")


def conflict(project):
    project.write("bad", stream=TOY["stream"] | {"stages": 2})


def fault(project):
    """As if loading had a bug that this file meets."""
    text(project, "bad.yaml", "extends: toy\ndescription: meets the bug\n")


# What spoils the experiment `bad`, and words of the sentence that is shown.
SPOILT = {
    "syntax": (lambda p: text(p, "bad.yaml", "a: [\nb: c"), ["bad.yaml, line 3", "YAML"]),
    "an unknown key": (lambda p: p.write("bad", batchsize=3), ["bad.yaml, line", "'batch_size'"]),
    "a folder": (lambda p: (p.root / "experiments/bad.yaml").mkdir(), ["bad.yaml", "no file"]),
    "a link to nothing": (lambda p: link(p, "bad.yaml", "nowhere"), ["bad.yaml cannot be read"]),
    "a link to itself": (lambda p: link(p, "bad.yaml", "bad.yaml"), ["bad.yaml cannot be read"]),
    "a missing dataset": (
        lambda p: p.write("bad", stream={"datasets": ["brids"], "stages": 1}),
        ["bad.yaml", "did you mean 'birds'"],
    ),
    "a dataset with a wrong declaration": (
        lambda p: (spoil_dataset(p, "dogs: {source: {type: folder, pth: x}}\n"),
                   p.write("bad", stream={"datasets": ["dogs"], "stages": 1})),
        ["'dogs'", "more.yaml, line 1", "did you mean 'path'"],
    ),
    "a dataset in a file that is no YAML": (
        lambda p: (spoil_dataset(p, "dogs:\n  source: {type: [\n"),
                   p.write("bad", stream={"datasets": ["dogs"], "stages": 1})),
        ["'dogs'", "more.yaml", "not valid YAML"],
    ),
    "another stream of one name": (conflict, ["'bad'", "'toy'", "streams/toy/", "stream.name"]),
    "an arrival with a long name": (lambda p: arrive(p, "a" * 128), ["a" * 128, "rename what"]),
    "no folder to grow in": (
        lambda p: p.write("bad", stream={"name": "live", "growing": "../nowhere"}),
        ["nowhere", "cannot be read"],
    ),
    "a variable": (
        lambda p: text(p, "bad.yaml", "extends: toy\ndescription: ${NOT_SET_AT_ALL}\n"),
        ["bad.yaml, line 2", "NOT_SET_AT_ALL is not set"],
    ),
    "a loop": (lambda p: text(p, "bad.yaml", "extends: bad\n"), ["bad.yaml extends itself"]),
    "a name that is taken": (lambda p: named(p, "Toy"), ["'Toy'", "case alone"]),
    "the name of a job": (lambda p: named(p, "observe_sources"), ["name of a job"]),
    "weights that are gone": (
        lambda p: p.write("bad", pretraining_pool={"name": "old", "datasets": ["old"]}, backbone={
            "name": "mine", "architecture": "ViT-B-32", "weights": "../mine.pt"}),
        ["bad.yaml: the weights of backbone 'mine': there is no file or folder", "mine.pt"],
    ),
    "an owner whom Dagster does not take": (
        lambda p: p.write("bad", owners=["ann@example.photography"]), ["ann@example.photography"],
    ),
    "a fault of the program": (fault, ["a fault of fomo-dagster", "ZeroDivisionError: of ours"]),
}  # fmt: skip


# Right in themselves, so that a command about them leaves out what they do not go with.
STAND_ALONE = ("another stream of one name", "a name that is taken")


@pytest.mark.slow
@pytest.mark.parametrize("case", SPOILT)
def test_one_bad_experiment_stops_no_other(project, monkeypatch, case):
    project.write("other", seed=3)
    before = groups(definitions_of(project))
    load = experiment_sets.experiment_from

    def load_with_a_bug(data, *arguments):
        if data.get("description") == "meets the bug":
            raise ZeroDivisionError("of ours")
        return load(data, *arguments)

    monkeypatch.setattr(experiment_sets, "experiment_from", load_with_a_bug)
    spoil, said = SPOILT[case]
    spoil(project)
    definitions = definitions_of(project)
    after = groups(definitions)
    assert all(after[name].keys() >= before[name].keys() for name in ("toy", "other"))
    shown = after["bad"]["bad/trouble"]
    assert all(words in shown for words in said), shown
    job = definitions.resolve_job_def("bad")
    with pytest.raises(dg.Failure) as failed:
        job.execute_in_process()
    assert failed.value.description == shown
    for command in (["plan", "other"], ["datasets", "--quick"], ["schedule", "other"]):
        _said.clear()
        ended = CliRunner().invoke(app, command)
        assert ended.exit_code == 0, ended.output
    if case not in STAND_ALONE:
        assert str(CliRunner().invoke(app, ["plan", "bad"]).exception).splitlines()[0] in shown


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize(
    "command", [["plan", "toy"], ["results"], ["datasets", "--quick"], ["schedule", "toy"],
                ["budget", "toy"]],
)  # fmt: skip
def test_every_command_says_in_a_line_what_is_left_out(finished_project, caplog, command):
    text(finished_project, "bad.yaml", "a: [\n")
    spoil_dataset(finished_project, "dogs: {source: {type: folder, pth: x}}\n")
    CliRunner().invoke(app, command, catch_exceptions=False)
    said = lines(caplog)
    assert [line for line in said if line.startswith("experiment bad is left out: ")]
    assert [line for line in said if "more.yaml, line 1: dataset 'dogs'" in line]
    assert len(said) == 2


def test_a_benchmark_dataset_is_not_taken_for_one_whose_declaration_cannot_be_read(project):
    """Its own declaration may say another prompt, and nobody can know."""
    (project.root / "datasets" / "closed.yaml").write_bytes(b"\xff\xfe\x00")
    project.write("bad", evaluation={"held_out": ["cifar100"]})
    shown = groups(definitions_of(project))["bad"]["bad/trouble"]
    assert "closed.yaml" in shown
    assert "it may declare cifar100" in shown


def test_a_wrong_dataset_that_nobody_needs_is_shown_beside_the_others(project):
    spoil_dataset(project, "dogs: {source: {type: foldr}}\nmice: {source: {type: folder, path: x}}")
    definitions = definitions_of(project)
    assert "'dogs'" in groups(definitions)["datasets"]["datasets/trouble"]
    project.write("other", stream={"name": "mice", "datasets": ["mice"], "stages": 1})
    assert "bad/trouble" not in groups(definitions_of(project))
    assert "other/scores" in groups(definitions_of(project))["other"]


def test_one_bad_member_of_a_sweep_stops_no_other(project):
    streams = {"good": {"datasets": ["birds"], "stages": 1, "name": "one"},
               "far": {"datasets": ["birds"], "stages": -1, "name": "two"},
               "gone": {"datasets": ["brids"], "stages": 1, "name": "three"}}  # fmt: skip
    text(project, "lots.yaml", yaml.safe_dump({"extends": "toy", "sweep": {"stream": streams}}))
    definitions = definitions_of(project)
    found = groups(definitions)
    assert "stages is -1" in found["lots_far"]["lots_far/trouble"]
    assert "'brids'" in found["lots_gone"]["lots_gone/trouble"]
    assert "lots_good/scores" in found["lots_good"]
    selected = definitions.resolve_job_def("lots").asset_layer.selected_asset_keys
    assert {dg.AssetKey(["lots_far", "trouble"]), dg.AssetKey(["lots_good", "scores"])} <= selected
    ended = CliRunner().invoke(app, ["plan", "lots"])
    assert "good" in ended.output
    assert str(ended.exception).startswith("lots: 2 of 3 experiments cannot be used")
    assert CliRunner().invoke(app, ["plan", "lots/good"]).exit_code == 0
    assert "stages is -1" in str(CliRunner().invoke(app, ["plan", "lots/far"]).exception)


def test_a_schedule_goes_on_where_its_experiment_is_in_trouble(project):
    project.write("bad", cron_schedule="0 3 * * *", stream={"datasets": ["brids"], "stages": 1})
    repository = definitions_of(project).get_repository_def()
    assert repository.get_schedule_def("bad_schedule").job_name == "bad"


def test_files_that_editors_and_systems_leave_are_none_of_ours(project):
    before = groups(definitions_of(project))
    link(project, ".#toy.yaml", "ann@host.1234:5678")
    text(project, "._toy.yaml", b"\x00\x05\x16\x07")
    assert groups(definitions_of(project)) == before


def test_scores_of_an_experiment_in_trouble_stay_on_the_leaderboard(finished_project):
    finished_project.write("other", seed=1)
    before = build_project(finished_project.root).nodes["leaderboard"]
    text(finished_project, "toy.yaml", "a: [\n")
    assert build_project(finished_project.root).nodes["leaderboard"] == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_stops_no_other(project):
    project.write("bad")
    (project.root / "experiments/bad.yaml").chmod(0)
    assert "cannot be read" in groups(definitions_of(project))["bad"]["bad/trouble"]


@pytest.mark.slow
def test_all_presets_can_be_copied_beside_the_experiments_as_they_are(project, request):
    shipped = request.config.rootpath
    shutil.copytree(shipped / "datasets", project.root / "datasets", dirs_exist_ok=True)
    copied = set()
    for file in sorted((shipped / "experiments").rglob("*.yaml")):
        shutil.copy(file, project.root / "experiments" / file.name)
        copied.add(file.stem)
    found = build_project(project.root)
    troubles = {trouble.name: trouble.sentence for trouble in found.troubles}
    of_release = {p.stem for p in (shipped / "experiments/fomo_in_flux").iterdir()}
    assert troubles.keys() <= of_release
    assert all("the environment variable FOMO_" in said for said in troubles.values())
    assert copied - troubles.keys() <= found.experiments.keys() | found.sweeps.keys()
    assert len(found.sweeps["learning_rates"]) == 6
    build_definitions(found, RunContexts.of(project.home), COMMANDS).resolve_job_def("lora")
