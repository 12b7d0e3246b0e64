"""What a file of galleries/ declares."""

import pytest
import yaml

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.comparisons import load_named
from fomo_dagster.experiment.experiment_sets import load_all
from fomo_dagster.experiment.galleries import load_galleries
from fomo_dagster.experiment.unread import unread_files


@pytest.fixture
def read(project):
    """What a gallery's file stands for."""
    (project.root / "galleries").mkdir()

    def write_and_read(overrides=(), **declared):
        path = project.root / "galleries" / "pets.yaml"
        path.write_text(yaml.safe_dump(declared, sort_keys=False))
        return load_named("galleries/pets", project.root, overrides)

    return write_and_read


def test_a_gallery_has_its_dataset_and_defaults(project, read):
    found = read(dataset="birds", release="shop")
    gallery = found.gallery
    assert (found.name, found.names, gallery.name) == ("galleries/pets", [], "pets")
    declared = gallery.declared
    assert (declared.split, declared.of, declared.precision) == ("all", "images", "fp32")
    assert gallery.dataset.prompt == "a photo of a {}"
    assert gallery.base == project.root / "datasets"
    assert load_named(str(gallery.path), project.root).name == "galleries/pets"


def test_what_is_executed_is_as_experiments_execute(read):
    execution = {"device": "cpu", "evaluation_batch_size": 7, "cpus": 2, "memory_gib": 1.5}
    whole = read(dataset="birds", release="shop", execution=execution).gallery.declared
    assert whole.execution.whole.model_dump(include=set(execution)) == execution


def test_shipped_and_benchmark_datasets_can_be_named(read):
    assert read(dataset="digits", release="shop").gallery.dataset.source.type == "generated"
    assert read(dataset="IMAGENET", release="shop").gallery.declared.dataset == "imagenet"


WRONG = {
    "an unknown key": (
        {"dataset": "birds", "release": "shop", "spilt": "test"}, "line 3: unknown key 'spilt'"
    ),
    "an unknown dataset": (
        {"dataset": "brids", "release": "shop"}, "line 1: dataset names 'brids', which is not decl"
    ),
    "no release": ({"dataset": "birds"}, "release is missing"),
    "no name": ({"dataset": "birds", "release": "my shop"}, "'my shop' is not a safe name"),
    "a number as an alias": (
        {"dataset": "birds", "release": "shop", "follows": "1"},
        "follows is '1': '1' reads like a release's number.*`fomo alias NAME kept 1`",
    ),
    "another split": (
        {"dataset": "birds", "release": "shop", "split": "val"}, "split is 'val'.*'all'"
    ),
    "no device": (
        {"dataset": "birds", "release": "shop", "execution": {"device": "tpu"}}, "a device is auto"
    ),
    "what only trainings do": (
        {"dataset": "birds", "release": "shop", "execution": {"workers": 2}}, "unknown key"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_with_its_file(read, case):
    declared, message = WRONG[case]
    with pytest.raises(InputError, match=message) as raised:
        read(**declared)
    assert "pets.yaml" in str(raised.value)


def test_a_streamed_dataset_has_no_gallery(project, read):
    source = {"type": "webdataset", "shards": "../tars/*.tar", "index": False}
    path = project.root / "datasets" / "more.yaml"
    path.write_text(yaml.safe_dump({"crawl": {"source": source}}))
    with pytest.raises(InputError, match="'crawl', which is streamed"):
        read(dataset="crawl", release="shop")


def test_values_of_experiments_cannot_be_set(read):
    with pytest.raises(InputError, match="--set 'seed=1': galleries/pets is a gallery"):
        read(["seed=1"], dataset="birds", release="shop")


def test_a_gallery_is_no_experiment(read):
    with pytest.raises(InputError, match="galleries/pets is a gallery, and an experiment was"):
        read(dataset="birds", release="shop").only()


def test_what_cannot_be_used_leaves_the_others_alone(project, read):
    read(dataset="birds", release="shop")
    folder = project.root / "galleries"
    (folder / "wrong.yaml").write_text("dataset: brids\nrelease: shop\n")
    (folder / "a-b.yaml").write_text("dataset: birds\nrelease: shop\n")
    (folder / "notes.txt").write_text("")
    (folder / "schema.json").write_text("{}")
    loaded, troubles = load_galleries(project.root, load_all(project.root).datasets)
    assert [one.name for one in loaded] == ["pets"]
    said = {one.called: one.sentence for one in troubles}
    assert said.keys() == {"galleries/wrong", "galleries/a-b"}
    assert "did you mean 'birds'" in said["galleries/wrong"]
    assert "'a-b' is not a safe name" in said["galleries/a-b"]
    (unread,) = unread_files(project.root, [])
    assert "galleries holds files that are not read: 'notes.txt'" in unread
    with pytest.raises(InputError, match=r"no gallery 'pet' in .*; did you mean 'pets'"):
        load_named("galleries/pet", project.root)
