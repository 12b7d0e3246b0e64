"""Whether images are here, by source; nothing is read through to know it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fomo_dagster.data.benchmark.registry import find
from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.presence import differences


def state(base: Path, **source: object) -> tuple[str, str]:
    found = Dataset.model_validate({"source": source}).source.presence("pets", base)
    return found.state, found.note


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")


def test_folders_and_tables_are_present_where_they_exist(tmp_path: Path) -> None:
    assert state(tmp_path, type="folder", path="pets") == (
        "missing",
        f"there is no folder {tmp_path}/pets",
    )
    touch(tmp_path / "pets" / "cat" / "1.png")
    assert state(tmp_path, type="folder", path="pets") == ("present", "")
    with_captions = {"type": "folder", "path": "pets", "captions": "texts.csv"}
    assert state(tmp_path, **with_captions) == (
        "incomplete",
        f"there is no file {tmp_path}/pets/texts.csv and there is no file {tmp_path}/texts.csv",
    )
    touch(tmp_path / "texts.csv")
    assert state(tmp_path, **with_captions) == ("present", "")
    touch(tmp_path / "pets" / "texts.csv")
    note = f"could be {tmp_path}/pets/texts.csv or {tmp_path}/texts.csv: declare the whole path"
    assert state(tmp_path, **with_captions)[0] == "incomplete"
    assert note in state(tmp_path, **with_captions)[1]
    hub = f"{tmp_path}/hub"
    assert state(tmp_path, type="manifest", path="pets")[1].startswith(
        f"{tmp_path}/pets is no file"
    )
    assert state(tmp_path, type="manifest", path="texts.csv") == ("present", "")
    assert state(tmp_path, type="huggingface", path="hub")[1].endswith("file or folder " + hub)


def test_what_comes_when_it_is_needed_is_on_demand(tmp_path: Path) -> None:
    assert state(tmp_path, type="generated", generator="dsprites") == ("on demand", "rendered")
    assert state(tmp_path, type="huggingface", name="a/b") == ("on demand", "from the hub")
    mnist = {"type": "torchvision", "dataset": "MNIST", "root": "tv"}
    assert state(tmp_path, **mnist)[0] == "missing"
    assert state(tmp_path, **mnist, download=True)[0] == "on demand"
    touch(tmp_path / "tv" / "MNIST" / "raw" / "train-images-idx3-ubyte")
    assert state(tmp_path, **mnist) == ("present", "")


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "release" / "data_lib" / "00_info").mkdir(parents=True)
    monkeypatch.delenv("FOMO_RELEASE", raising=False)
    monkeypatch.delenv("FOMO_RELEASE_IMAGES", raising=False)
    return tmp_path / "release"


def test_a_released_dataset_needs_its_images_and_its_lists(release: Path) -> None:
    base = release.parent
    monkeys = {"type": "fomo_release", "dataset": "monkeys10"}
    assert state(base, **monkeys) == ("missing", "no release")
    monkeys["release"] = "release"
    assert state(base, **monkeys) == ("missing", "no archive")

    part = release / "data" / "MONKEYS10.tar.part"
    part.parent.mkdir()
    part.write_bytes(bytes(3_000_000))
    assert state(base, **monkeys) == ("incomplete", "2.86 MiB downloaded")

    touch(release / "data" / "MONKEYS10.tar")
    lacking = "no MONKEYS10_train.json, MONKEYS10_test.json, class list"
    assert state(base, **monkeys) == ("incomplete", lacking)
    info = release / "data_lib" / "00_info"
    for split in ("train", "test"):
        touch(info / f"MONKEYS10_{split}.json")
    (info / "MONKEYS10_classnames.json").write_text(json.dumps(["howler"]))
    assert state(base, **monkeys) == ("present", "")

    (release / "data" / "MONKEYS10").mkdir()
    source = {"type": "fomo_release", "dataset": "monkeys10", "release": "release"}
    found = Dataset.model_validate({"source": source}).source.presence("pets", base)
    assert found.place.endswith("MONKEYS10.tar")  # which is what is read where both are there
    (release / "data" / "MONKEYS10.tar").unlink()
    assert state(base, **monkeys) == ("present", "")


def test_splits_that_a_dataset_does_not_have_are_not_asked_for(release: Path) -> None:
    touch(release / "data" / "FLICKR30K.tar")  # without training images, and without classes
    touch(release / "data_lib" / "00_info" / "FLICKR30K_test.json")
    flickr = {"type": "fomo_release", "dataset": "flickr30k", "release": "release"}
    assert state(release.parent, **flickr) == ("present", "")


def test_differences_name_the_splits_that_differ() -> None:
    monkeys = find("monkeys10")
    assert differences(monkeys, {"train": 1097, "test": 272}) == ""
    assert differences(monkeys, {"train": 1096, "test": 272}) == "1,096 of 1,097 train"
    assert differences(monkeys, {"train": 0, "test": 300}) == "0 of 1,097 train, 300 of 272 test"
