"""Weights that are not retained go after a run, and come back where something is made from them."""

import json
import re
import shlex

import dagster as dg
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.experiment.retention import Retention, restoring
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.graph.run.retention import apply_retention, retained
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.store.roots import digests_in


def entries(project, *overrides):
    graph = project.graph("toy", *overrides)
    return {e.asset: e for e in plan(graph.of("toy"), RunContext(graph, project.home))}


def weights(project):
    """The stages whose trained weights are in the store."""
    return [
        stage
        for stage in (1, 2, 3)
        for address in project.home.heads.read(f"toy/trained_{stage:03d}").artifacts.values()
        if project.home.store.folder(*address).is_dir()
    ]


def apply(project, *overrides):
    return apply_retention("toy", RunContext(project.graph("toy", *overrides), project.home))


def retain(project, **retention):
    project.write("toy", retention=retention)


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        ({}, {1, 2, 3, 4, 5, 6, 7}),
        ({"last": 2}, {6, 7}),
        ({"last": 9}, {1, 2, 3, 4, 5, 6, 7}),
        ({"every": 3}, {3, 6, 7}),
        ({"last": 2, "every": 2}, {2, 4, 6, 7}),
        ({"deployed_only": True}, {1, 2, 3, 4, 5, 6, 7}),
    ],
)
def test_the_last_stage_and_those_asked_for_are_retained(retention, kept):
    assert Retention(**retention).stages(range(1, 8)) == kept


@pytest.mark.parametrize("wrong", [{"last": 0}, {"every": -1}, {"lats": 2}, {"last": "two"}])
def test_a_retention_that_cannot_be_is_refused_with_its_key(project, wrong):
    with pytest.raises(ValidationError):
        Retention(**wrong)
    retain(project, **wrong)
    with pytest.raises(InputError, match=rf"retention.*{next(iter(wrong))}"):
        project.load()


def test_of_merged_weights_only_what_is_deployed_is_retained(project):
    method = "method={combination: double_merge_ft_unrolled}"
    graph = project.graph("toy", method, "retention={deployed_only: true, last: 1}")
    assert retained(graph.experiments["toy"], graph) == {"toy/deployed_003"}
    graph = project.graph("toy", method, "retention={last: 1}")
    assert retained(graph.experiments["toy"], graph) == {"toy/deployed_003", "toy/trained_003"}


def test_a_finished_experiment_has_nothing_to_compute_after_its_weights_went(finished_project):
    project = finished_project
    digests = {a: project.home.heads.read(a).digest for a in project.home.heads.below("toy")}
    retain(project, last=1)
    assert {kind for kind, _ in apply(project).artifacts} == {"trained", "text_embeddings"}
    assert weights(project) == [3]
    planned = entries(project)
    assert not [e for e in planned.values() if e.compute]
    assert all(e.current for e in planned.values())
    assert planned["toy/trained_001"].reasons[0].startswith("cleaned on 20")
    assert apply(project) is None
    run_experiment("toy", [])  # a run leaves it so
    assert weights(project) == [3]
    assert digests == {a: project.home.heads.read(a).digest for a in digests}


def test_what_is_needed_again_is_computed_again_with_the_same_bits_and_goes(finished_project):
    project = finished_project
    before = {n: project.home.heads.read(f"toy/{n}") for n in ("trained_002", "evaluation_002")}
    retain(project, last=1)
    apply(project)
    kind, digest = before["evaluation_002"].artifacts["cats"]
    manifest = project.home.store.folder(kind, digest) / "manifest.json"
    files = json.loads(manifest.read_text())["files"]
    manifest.unlink()
    planned = entries(project)
    assert {a for a, e in planned.items() if e.compute} == {
        "toy/trained_001", "toy/trained_002", "toy/evaluation_002",
    }  # fmt: skip
    assert planned["toy/trained_002"].reasons[0].startswith("cleaned on 20")
    run_experiment("toy", [])
    again = json.loads(manifest.read_text())["files"]
    assert again == files
    assert weights(project) == [3]
    assert not [e for e in entries(project).values() if not e.current]


def test_weights_of_which_something_is_not_made_yet_stay(finished_project):
    project = finished_project
    retain(project, last=1)
    kind, digest = project.home.heads.read("toy/evaluation_001").artifacts["cats"]
    (project.home.store.folder(kind, digest) / "manifest.json").unlink()
    apply(project)
    assert weights(project) == [1, 3]


def test_weights_that_another_experiment_has_too_stay(finished_project):
    project = finished_project
    project.write("other")
    run_experiment("other", [])
    retain(project, last=1)
    assert apply(project) is None
    assert weights(project) == [1, 2, 3]


def test_restored_weights_are_those_that_were_cleaned(finished_project):
    project = finished_project
    head = project.home.heads.read("toy/trained_001")
    retain(project, last=1)
    apply(project)
    graph = project.graph()
    way = restoring("toy")
    with pytest.raises(StoreError, match=rf"was cleaned on 20.*{re.escape(way)}"):
        RunContext(graph, project.home).artifact("toy/trained_001")
    invoke(*shlex.split(way.strip("`"))[1:])  # as it says, though `retention` takes them
    assert RunContext(graph, project.home).artifact("toy/trained_001")
    apply(project)
    project.write("toy", retention={"last": 3})
    assert not [e for e in entries(project).values() if e.compute]
    invoke("run", "toy", "--restore")
    assert weights(project) == [1, 2, 3]
    assert project.home.heads.read("toy/trained_001").artifacts == head.artifacts


def test_dagster_applies_it_after_a_run_and_leaves_what_went(finished_project):
    from fomo_dagster.definitions import load

    project = finished_project
    retain(project, last=1)
    definitions = load()
    job = definitions.resolve_job_def("toy")
    for _ in range(2):
        result = job.execute_in_process(instance=dg.DagsterInstance.ephemeral())
        assert result.success
        assert weights(project) == [3]


def invoke(*arguments):
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_clean_keeps_the_weights_of_the_named_and_the_numbers_of_all(finished_project):
    project = finished_project
    project.write("other", optimiser={"learning_rate": 2e-3})
    run_experiment("other", [])
    invoke("store", "clean", "--yes")  # the leaderboard of one
    gone = {project.home.heads.read(f"toy/trained_00{n}").digest for n in (1, 2, 3)}
    stays = {
        one for one in project.artifacts()
        if not gone & {one.partition("/")[2], *made_from(project, one)}
        or one.startswith("evaluation")
    }  # fmt: skip
    said = json.loads(invoke("store", "clean", "--keep", "oth*", "--json"))
    assert {one["digest"] for one in said["artifacts"] if one["kind"] == "trained"} == gone
    assert {one["kind"] for one in said["artifacts"]} == {"trained", "text_embeddings"}
    assert not said["done"]
    assert "of toy" in invoke("store", "clean", "--keep", "other", "--yes")
    assert project.artifacts() == stays
    for name in ("toy", "other"):
        graph = build_project(project.root)
        planned = plan(graph.of(name), RunContext(graph, project.home))
        assert not [entry for entry in planned if entry.compute]
    assert "nothing to clean" in invoke("store", "clean", "--yes")
    assert {one["name"] for one in json.loads(invoke("store", "--json"))["experiments"]} == {
        "toy", "other",
    }  # fmt: skip


def made_from(project, artifact):
    manifest = json.loads((project.home.root / "store" / artifact / "manifest.json").read_text())
    return digests_in(manifest["recipe"]["inputs"])


def test_a_name_that_is_none_is_said_before_anything_goes(finished_project):
    with pytest.raises(InputError, match=r"--keep 'tyo': no experiment .* did you mean 'toy'"):
        invoke("store", "clean", "--keep", "tyo", "--yes")
    with pytest.raises(InputError, match="--forget needs FOMO_STORE"):
        invoke("store", "clean", "--forget", "someone")


def test_a_folder_that_is_no_home_is_said(project):
    with pytest.raises(InputError, match=r"is no home: nothing was made there\. Set FOMO_HOME"):
        invoke("store", "clean")
