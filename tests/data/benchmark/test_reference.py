"""The real files of a release, where there is a copy: `FOMO_REFERENCE_RELEASE` says where."""

import json
import os
from pathlib import Path

import pytest
import yaml

from fomo_dagster.data.benchmark.info_files import read_info
from fomo_dagster.data.benchmark.registry import benchmark_datasets, find
from fomo_dagster.data.benchmark.release import Release, resized_folder
from fomo_dagster.experiment.loading import load_experiment
from fomo_dagster.graph.build.builder import build_graph
from fomo_dagster.streams.entries import canonical_entry, parse_entry, read_entries

WHERE = os.environ.get("FOMO_REFERENCE_RELEASE")
pytestmark = pytest.mark.skipif(
    WHERE is None or not Path(WHERE).is_dir(),
    reason="FOMO_REFERENCE_RELEASE names no copy of the benchmark's release",
)


@pytest.fixture
def release():
    return Release.locate(Path(WHERE), None)


def test_class_lists_have_the_registrys_number_of_classes_in_the_streams_order(release):
    looked_at = 0
    for name, dataset in benchmark_datasets().items():
        if not (release.info_folder / f"{dataset.folder}_classnames.json").is_file():
            continue
        classes = release.class_names(dataset)
        assert len(classes) == dataset.classes, name
        listed = release.streams_folder / "datasets" / f"{name}.json"
        if listed.is_file():
            entries = [parse_entry(entry) for entry in read_entries(listed)]
            assert entries == [(name, concept) for concept in classes]
        looked_at += 1
    assert looked_at


def present(release):
    """(dataset, split, resized, path) of every info file of this copy."""
    found = [
        (dataset, split, resized, release.info_file(dataset, split, resized=resized))
        for dataset in benchmark_datasets().values()
        for split in ("train", "test")
        for resized in (False, True)
    ]
    there = [one for one in found if one[-1].is_file()]
    assert there
    return there


def test_info_files_list_the_registrys_samples_with_their_classes(release):
    for dataset, split, resized, path in present(release):
        info = read_info(path, resized_folder(dataset, split))
        assert info.height == {"train": dataset.train, "test": dataset.test}[split], path.name
        assert not info["key"].str.contains("_224/").any(), path.name
        classes = release.class_names(dataset)
        if classes is None:
            assert info["target"].to_list() == list(range(info.height)), path.name
        else:
            assert info["classname"].to_list() == [classes[i] for i in info["target"]], path.name
        if resized:
            full_size = read_info(release.info_file(dataset, split))
            assert set(info["key"]) == set(full_size["key"]), path.name
            assert (info["captions"].list.len() > 0).all(), path.name


def test_captions_are_those_of_the_field_that_the_registry_names(release):
    for dataset, _, _, path in present(release):
        field = {"default": "default_caption", "merged": "synthetic_merged_caption"}
        said = [row[field[dataset.caption]] for row in json.loads(path.read_bytes()).values()]
        texts = [[text] if isinstance(text, str) else text or [] for text in said]
        assert read_info(path)["captions"].to_list() == texts, path.name


def test_streams_name_concepts_of_the_adaptation_datasets(release):
    files = sorted(release.streams_folder.glob("*.json"))
    assert files
    for file in files:
        for entry in read_entries(file):
            name, concept = parse_entry(canonical_entry(entry, ()))
            dataset = benchmark_datasets()[name]
            assert dataset.role == "adaptation"
            if (release.info_folder / f"{dataset.folder}_classnames.json").is_file():
                assert concept in release.class_names(dataset)


def test_an_experiment_on_a_released_stream_has_all_its_datasets(release, tmp_path, monkeypatch):
    monkeypatch.setenv("FOMO_RELEASE", str(release.root))
    (tmp_path / "experiments").mkdir()
    for file in sorted(release.streams_folder.glob("*.json")):
        experiment = {
            "backbone": {"name": "b32", "architecture": "ViT-B-32", "pretrained": "openai"},
            "stream": {"file": f"${{FOMO_RELEASE}}/stream_construction/{file.name}", "stages": 20},
            "mixture": {"update": 0.5, "buffer": 0.5, "pretraining": 0},
            "evaluation": {"held_out": ["CALTECH101", "flickr30k"]},
        }
        (tmp_path / "experiments" / "flux.yaml").write_text(yaml.safe_dump(experiment))
        nodes = build_graph([load_experiment("flux", tmp_path)]).nodes
        names = {find(entry.partition("+++")[0]).name for entry in json.loads(file.read_text())}
        shards = {key.removeprefix("shards/") for key in nodes if key.startswith("shards/")}
        assert shards == {*names, "caltech101", "flickr30k"}


def test_every_dataset_has_an_address_to_be_fetched_from(release):
    addresses = (release.root / "download_data.csv").read_text()
    assert all(f"/{d.folder}.tar" in addresses for d in benchmark_datasets().values())


@pytest.mark.parametrize("number", range(1, 6))
def test_datasets_come_in_time_as_the_registry_says(release, number):
    path = release.streams_folder / f"time_incremental_dschunked_{number}.json"
    if not path.is_file():
        pytest.skip("this copy has not all streams")
    entries = (canonical_entry(entry, ()) for entry in read_entries(path))
    in_time = list(dict.fromkeys(parse_entry(entry)[0] for entry in entries))
    places = {name: dataset.released_place for name, dataset in benchmark_datasets().items()}
    assert [places[name] for name in in_time] == list(range(1, 42))
