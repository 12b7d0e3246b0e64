"""What launched processes are told: JSON, from which they build the graph as it was."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from fomo_dagster.errors import StoreError
from fomo_dagster.experiment import experiment_sets as experiment_sets
from fomo_dagster.graph.build.builder import build_graph
from fomo_dagster.graph.run.launching import _make_private
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.run.tasks import Task, as_data, from_data

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(ROOT.glob("experiments/**/*.yaml"))


def sent(loaded):
    return from_data(json.loads(json.dumps(as_data(loaded))))


@pytest.fixture(autouse=True)
def release(monkeypatch):
    for variable in ("FOMO_RELEASE", "FOMO_PRETRAINING_POOL"):
        monkeypatch.setenv(variable, "/nowhere")


def test_every_shipped_experiment_survives_being_sent(monkeypatch):
    assert len(FILES) > 40
    monkeypatch.setattr(experiment_sets, "load_datasets", cache(experiment_sets.load_datasets))
    for file in FILES:
        for member in experiment_sets.load_experiment_set(str(file), ROOT).members:
            assert sent(member) == member, file


@pytest.mark.parametrize("changes", [{}, {"validation": {"share": 0.3}, "seed": 3}])
def test_the_graph_of_what_was_sent_is_that_of_the_file(project, changes):
    project.write("toy", **changes)
    graph = project.graph()
    again = build_graph([sent(graph.owners["toy/trained_001"])])
    assert again.nodes == graph.nodes
    assert again.code_versions == graph.code_versions


def entries_of_a_file(project):
    listed = project.root / "order.json"
    listed.write_text(json.dumps(["birds+++wren", "cats+++lion", "birds+++crow"]))
    project.write("toy", stream={"name": "toy", "file": "../order.json", "stages": 3})
    return lambda: listed.write_text(json.dumps(["cats+++lion", "birds+++wren", "birds+++crow"]))


def arrivals_of_a_folder(project):
    (project.root / "images").rename(project.root / "incoming")
    (project.root / "images").symlink_to("incoming")
    project.write("toy", stream={"name": "live", "growing": "../incoming"})
    return (project.root / "incoming" / "aaa" / "puma").mkdir


@pytest.mark.parametrize("prepare", [entries_of_a_file, arrivals_of_a_folder])
def test_what_changes_after_a_launch_is_not_read_again(project, prepare):
    change = prepare(project)
    graph = project.graph()
    data = json.dumps(as_data(graph.owners["toy/trained_001"]))
    if prepare is arrivals_of_a_folder:
        (project.root / "incoming" / "aaa").mkdir()
    change()
    assert project.graph().nodes != graph.nodes
    assert build_graph([from_data(json.loads(data))]).nodes == graph.nodes


def task(project, **changes):
    graph = project.graph()
    node = graph.nodes["toy/trained_001"]
    recipes = node.recipes(node.input_facts(RunContext(graph, project.home)))
    told = Task(
        sharing=1, processes=1,
        declared=as_data(graph.owners[node.key]), home=project.home, key=node.key,
        digests={name: recipe.digest for name, recipe in recipes.items()}, folder=Path("/there"),
        threads=1, host="here", tells_steps=False,
    )  # fmt: skip
    return told.model_copy(update=changes), recipes


def test_a_task_asks_for_the_recipes_that_it_was_launched_for(finished_project, tmp_path):
    told, recipes = task(finished_project)
    path = tmp_path / "task.json"
    path.write_text(told.model_dump_json())
    read = Task.read(path)
    assert read == told
    graph = read.graph()
    node = graph.nodes[read.key]
    assert read.recipes(node, RunContext(graph, read.home)) == recipes


@pytest.mark.parametrize(
    "changes", [{"digests": {"only": "0" * 64}}, {"digests": {"other": "0" * 64}}]
)
def test_a_task_of_another_recipe_is_refused(finished_project, changes):
    told, _ = task(finished_project, **changes)
    graph = told.graph()
    with pytest.raises(StoreError, match="an input changed after its processes were launched"):
        told.recipes(graph.nodes[told.key], RunContext(graph, told.home))


def test_a_task_whose_inputs_moved_meanwhile_is_refused(finished_project):
    told, _ = task(finished_project)
    head = finished_project.home.heads.read("streams/toy/chunk_001")
    finished_project.home.heads.write(replace(head, data_version="another"))
    graph = told.graph()
    with pytest.raises(StoreError, match="Another run changed it"):
        told.recipes(graph.nodes[told.key], RunContext(graph, told.home))


@pytest.mark.parametrize(
    "content",
    [b"\x80\x04\x95", b"{", b"{}", b"[]", b'{"key": "x", "code": "y"}'],
    ids=["pickle", "cut off", "empty", "a list", "more keys"],
)
def test_what_is_no_task_is_refused(tmp_path, content):
    path = tmp_path / "task.json"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="cannot be read"):
        Task.read(path)


@pytest.mark.parametrize("declared", [{}, {"datasets": {}}, {"datasets": 3, "experiment": "x"}])
def test_a_task_without_an_experiment_is_refused(declared):
    with pytest.raises(StoreError, match="holds no experiment"):
        from_data(declared)


def test_the_folder_of_a_launch_is_its_owners_alone(tmp_path):
    folder = tmp_path / "launches" / "abc"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    (folder / "task.json").write_text("of another")
    _make_private(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not list(folder.iterdir())


def test_a_link_in_the_place_of_a_launch_is_not_followed(tmp_path):
    (tmp_path / "launches").mkdir()
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "launches" / "abc"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="abc is in the way and cannot be removed"):
        _make_private(link)
    assert not list((tmp_path / "elsewhere").iterdir())
