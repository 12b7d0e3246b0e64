"""What lies among the declarations and is not read is said."""

from pathlib import Path

import pytest

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.declared_datasets import load_datasets
from fomo_dagster.experiment.files import experiment_files
from fomo_dagster.experiment.loading import load_experiment
from fomo_dagster.experiment.unread import unread, unread_files


def said(project):
    return unread(project.root, [project.load()])


def put(project, *names):
    for name in names:
        path = project.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


def test_a_project_of_declarations_alone_has_nothing_to_say(project):
    put(project, "experiments/schema.json", "experiments/README.md", "datasets/.hidden")
    put(project, "experiments/methods/lora.yaml")
    assert said(project) == ()


UNREAD = {
    "another format": "experiments/toy.json",
    "a copy": "experiments/toy.yaml.bak",
    "a folder's declaration": "datasets/more/birds.yaml",
    "a table that nothing names": "datasets/captions.csv",
    "a comparison in a folder": "comparisons/more/pair.yaml",
}


@pytest.mark.parametrize("case", UNREAD)
def test_a_file_that_is_not_read_is_named(project, case):
    put(project, UNREAD[case])
    (sentence,) = said(project)
    folder, _, rest = UNREAD[case].partition("/")
    assert sentence.startswith(f"{project.root / folder} holds files that are not read: '{rest}';")


def test_what_never_arrives_in_a_growing_stream_is_named(project):
    put(project, "incoming/1.zip", "incoming/2.csv.part", "incoming/3.csv", "incoming/4/a.png")
    project.write("toy", stream={"name": "toy", "growing": "../incoming"})
    (sentence,) = said(project)
    assert "incoming holds files that are no stages: '1.zip'; a stage is" in sentence


def test_what_a_declaration_names_is_data(project):
    put(project, "datasets/captions.csv", "datasets/data/notes.yaml", "datasets/tars/00000.yaml")
    source = {"type": "folder", "path": "data", "captions": "captions.csv"}
    tars = {"type": "webdataset", "shards": "tars/*.tar"}
    declared = [
        (Dataset.model_validate({"source": one}), project.root / "datasets")
        for one in (source, tars)
    ]
    assert unread_files(project.root, declared) == ()


def test_of_two_files_that_differ_in_their_suffix_neither_is_taken_for_the_other(project):
    experiments = project.root / "experiments"
    (experiments / "toy.yml").write_text("extends: toy\n")
    (experiments / "other.yaml").write_text("extends: toy\n")
    assert list(experiment_files(project.root)) == ["other", "toy", "toy.yml"]
    for name in ("toy", "toy.yml", "other"):
        with pytest.raises(InputError, match=r"toy\.yaml and toy\.yml would both be 'toy'"):
            load_experiment(name, project.root)


def test_suffixes_count_in_either_case_and_of_datasets_both(project):
    datasets: Path = project.root / "datasets"
    (project.root / "experiments/toy.yaml").rename(project.root / "experiments/toy.YML")
    (datasets / "toy.yml").write_text("more: {source: {type: folder, path: x}}\n")
    assert project.load().experiment.name == "toy"
    assert set(load_datasets(project.root).declared) == {"birds", "cats", "old", "more"}
