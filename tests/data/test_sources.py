"""What every source declares, and what one that is added has to bring: its own room and no more."""

from pathlib import Path
from typing import ClassVar, Literal, get_args

import pytest

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.presence import Presence
from fomo_dagster.data.sources.declared import DeclaredSource
from fomo_dagster.data.sources.generated import GeneratedImages
from fomo_dagster.data.sources.registry import SOURCES
from fomo_dagster.graph.nodes.datasets import NODES
from fomo_dagster.graph.nodes.shards import ShardsNode

DECLARED = {
    "folder": {"path": "images", "captions": "texts.csv"},
    "manifest": {"path": "table.csv", "root": "images"},
    "generated": {"generator": "dsprites"},
    "torchvision": {"dataset": "MNIST", "root": "images"},
    "huggingface": {"path": "images"},
    "fomo_release": {"release": "copy", "images": "copy/data"},
    "webdataset": {"shards": "tars/{0..3}.tar"},
}


class PhoneSource(DeclaredSource):
    """A source as someone would add it."""

    places: ClassVar[frozenset[str]] = frozenset({"album"})

    type: Literal["phone"] = "phone"
    album: Path
    heic: bool = False

    def open(
        self, name: str, base: Path, cache: Path, *, one_concept: str | None = None
    ) -> GeneratedImages:
        return GeneratedImages(one_concept or "none", {"album": str(base / self.album)}, 0)

    def presence(self, name: str, base: Path) -> Presence:
        return Presence("present", str(base / self.album))


class PhoneDataset(Dataset):
    source: PhoneSource


def declared(type_: str, **options: object) -> Dataset:
    return Dataset.model_validate({"source": {"type": type_, **DECLARED[type_], **options}})


def test_each_registered_source_has_a_type_of_its_own() -> None:
    of_type = {
        name: source
        for source in SOURCES
        for name in get_args(source.model_fields["type"].annotation)
    }
    assert list(of_type.values()) == list(SOURCES)
    for type_ in DECLARED:
        assert type(declared(type_).source) is of_type[type_]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.model_fields["type"].default)
def test_the_places_of_a_source_are_fields_of_it(source: type[DeclaredSource]) -> None:
    assert source.places <= set(source.model_fields)


@pytest.mark.parametrize(
    ("type_", "moved"),
    [
        ("folder", {"path": "other", "captions": None}),
        ("manifest", {"path": "other.csv", "root": None}),
        ("torchvision", {"root": "other", "download": True}),
        ("huggingface", {"path": "other"}),
        ("fomo_release", {"release": None, "images": "other"}),
    ],
)
def test_shards_are_declared_alike_wherever_their_images_lie(
    type_: str, moved: dict[str, object]
) -> None:
    def code(dataset: Dataset) -> object:
        return ShardsNode(key="shards/pets", name="pets", dataset=dataset).declared

    assert code(declared(type_)) == code(declared(type_, **moved))
    assert code(declared(type_)) != code(declared("generated"))


def test_a_source_names_the_paths_that_its_images_lie_in(tmp_path: Path) -> None:
    def named(type_: str, **options: object) -> set[str]:
        paths = declared(type_, **options).source.named_paths(tmp_path)
        return {path.relative_to(tmp_path).as_posix() for path in paths}

    assert named("folder") == {"images", "images/texts.csv", "texts.csv"}
    assert named("folder", captions=None) == {"images"}
    assert named("torchvision") == {"images"}
    assert named("generated") == set()
    assert named("fomo_release") == {"copy", "copy/data"}
    assert named("webdataset") == {"tars"}
    assert named("webdataset", shards=["a/b*.tar", "s3://c/d.tar"], index=False) == {"a"}


def test_the_access_of_a_source_says_which_node_a_dataset_has() -> None:
    def kind(type_: str, **options: object) -> str:
        _, node = NODES[declared(type_, **options).source.access]
        return node.__name__

    assert {kind(type_) for type_ in DECLARED if type_ != "webdataset"} == {"ShardsNode"}
    assert kind("webdataset") == "PlacedNode"
    assert kind("webdataset", index=False) == "StreamedNode"


def test_an_added_source_is_declared_opened_and_found_by_its_own_methods(tmp_path: Path) -> None:
    dataset = PhoneDataset.model_validate(
        {"source": {"type": "phone", "album": "summer"}, "task": "retrieval"}
    )
    opened = dataset.open("mine", tmp_path, tmp_path)
    assert isinstance(opened, GeneratedImages)
    assert (opened.name, opened.parameters) == ("mine", {"album": str(tmp_path / "summer")})
    assert dataset.source.presence("mine", tmp_path).place == str(tmp_path / "summer")
    assert list(dataset.source.named_paths(tmp_path)) == [tmp_path / "summer"]
    shards = ShardsNode(key="shards/mine", name="mine", dataset=dataset).declared
    assert shards["source"] == {"type": "phone", "heic": False}


def test_a_source_of_no_type_is_refused_with_the_types_there_are() -> None:
    with pytest.raises(ValueError, match="'folder', 'manifest', 'generated'"):
        Dataset.model_validate({"source": {"type": "floppy"}})
