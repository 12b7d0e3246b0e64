"""What was begun by an earlier way stays what it is, and goes on as it was begun."""

import shutil

import pytest

from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.data import resizing
from fomo_dagster.graph.core.facts import ONLY, Facts
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.settling import settled
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.graph.run.promotion import promote_stage
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.store.notes import write_note
from fomo_dagster.tables.evaluated_alike import alike, evaluated
from tests.conftest import Project, enter

FROM_PIXELS = {"backbone", "trained", "evaluation"}


def planned(name="toy", *overrides):
    request = resolve_request(name, list(overrides))
    context = RunContext(request.graph, request.home)
    return plan(request.graph.of(request.experiment.name), context)


def ways(project, name="toy"):
    """Kind of asset → the ways by which the heads of an experiment say that it was made."""
    found = {}
    for node in project.graph(name).of(name):
        head = project.home.heads.read(node.key)
        for recipe in head.recipes.values():
            found.setdefault(node.kind, set()).add(recipe["parameters"].get("pixels", 1))
    return found


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A project whose experiment was run before there was another way; never changed."""
    made = Project(tmp_path_factory.mktemp("begun") / "project")
    made.set_up()
    with pytest.MonkeyPatch.context() as before:
        enter(made, before)
        before.setattr("fomo_dagster.graph.work.stage.training_flops", lambda *_: {})
        before.delattr(resizing, "_by_torch")

        def earlier(node, facts, context):
            return {n: r.earlier or r for n, r in node.recipes(facts).items()}

        before.setattr(Node, "settled", earlier)
        run_experiment("toy", [])
    return made


@pytest.fixture
def old(begun, tmp_path, monkeypatch, plots, uncounted):
    """A copy of it."""
    shutil.copytree(begun.root, tmp_path / "project")
    return enter(Project(tmp_path / "project"), monkeypatch)


@pytest.mark.slow
def test_what_was_computed_before_stays(old):
    there = old.artifacts()
    assert all(entry.current for entry in planned())
    run_experiment("toy", [])
    assert old.artifacts() == there
    assert all(ways(old)[kind] == {1} for kind in FROM_PIXELS)


@pytest.mark.slow
def test_what_changes_is_computed_the_new_way_and_nothing_else(old):
    change = "optimiser.learning_rate=0.002"
    entries = {entry.asset: entry for entry in planned("toy", change)}
    assert not entries["toy/evaluation_000"].compute
    assert not entries["backbones/toy"].compute
    for stage in (1, 2, 3):
        entry = entries[f"toy/trained_{stage:03d}"]
        assert entry.compute == (ONLY,)
        assert not any("pixels" in reason for reason in entry.reasons)
    run_experiment("toy", [change])
    found = ways(old)
    assert (found["backbone"], found["trained"], found["evaluation"]) == ({1}, {2}, {1, 2})
    assert all(entry.current for entry in planned("toy", change))
    # Evaluations by both ways are compared as if there were one.
    both = {str(stage): evaluated(old.home, "toy", stage) for stage in (0, 3)}
    assert alike(both, common=False).kept == {"birds", "cats", "old"}


@pytest.mark.slow
def test_what_is_lost_is_made_again_as_it_was(old):
    head = old.home.heads.read("toy/trained_003")
    kind, digest = head.artifacts[ONLY]
    shutil.rmtree(old.home.root / "store" / kind / digest)
    (entry,) = (e for e in planned() if e.compute)
    assert entry.asset == "toy/trained_003"
    run_experiment("toy", [])
    assert old.home.heads.read("toy/trained_003").artifacts[ONLY] == (kind, digest)


@pytest.mark.slow
def test_another_experiment_shares_what_was_computed_before(old):
    old.write("twin")
    assert not any(entry.compute for entry in planned("twin") if entry.kind in FROM_PIXELS)


@pytest.mark.slow
def test_what_is_live_is_held_against_by_the_evaluation_that_it_had(old):
    gates = {"retention": {"no_worse_than": "live", "margin": 100}}
    old.write("toy", release={"name": "shop", "gates": gates, "approval": "automatic"})
    run_experiment("toy", [])
    promote_stage("toy", 1, first=True)
    there = old.artifacts()
    run_experiment("toy", [])
    assert {made.split("/")[0] for made in old.artifacts() - there} == {"candidate"}


@pytest.mark.slow
def test_what_is_computed_first_is_of_the_new_way(project, uncounted):
    run_experiment("toy", [])
    assert all(ways(project)[kind] == {2} for kind in FROM_PIXELS)
    assert all(entry.current for entry in planned())


@pytest.fixture
def trained(project):
    """A stage of an experiment of which nothing was made, its recipe, and where it would be."""
    graph = project.graph()
    node, context = graph.nodes["toy/trained_001"], RunContext(graph, project.home)
    recipe = node.recipes({key: Facts(f"version of {key}") for key in node.inputs})[ONLY]
    return node, recipe, context


def test_nothing_that_was_begun_means_the_new_way(trained):
    node, recipe, context = trained
    assert settled(recipe, node.key, ONLY, context) is recipe


def test_a_training_that_was_killed_goes_on_as_it_was_begun(trained):
    node, recipe, context = trained
    context.resume_folder(recipe.earlier).mkdir(parents=True)
    assert settled(recipe, node.key, ONLY, context) is recipe.earlier


def test_what_was_cleaned_is_still_what_it_was(trained):
    node, recipe, context = trained
    write_note(context.store.places.cleaned(recipe.kind, recipe.earlier.digest))
    assert settled(recipe, node.key, ONLY, context) is recipe.earlier
