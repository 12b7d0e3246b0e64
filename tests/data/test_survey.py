"""A look at a dataset before it is stored: its figures, by values."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from PIL import Image

from fomo_dagster.data import survey as module
from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.sources.source import Source, inspect, listing
from fomo_dagster.data.survey import Survey, survey
from fomo_dagster.errors import DataError

RNG = np.random.default_rng(3)


def encoded(width: int, height: int, mode: str = "RGB") -> bytes:
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = RNG.integers(0, 255, (height, width, *channels), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def images(tmp_path: Path) -> dict[str, bytes]:
    """Nine images of two classes, most of them odd in one way; written below tmp_path/images."""
    plain = io.BytesIO()
    Image.new("RGB", (50, 40), (9, 9, 9)).save(plain, "PNG")
    same = encoded(40, 40)
    files = {
        "train/cat/plain.png": encoded(64, 48),
        "train/cat/clear.png": encoded(33, 48, "RGBA"),
        "train/cat/flat.png": plain.getvalue(),
        "train/cat/grey.png": encoded(100, 90, "L"),
        "train/dog/tiny.png": encoded(31, 200),
        "train/dog/same.png": same,
        "train/dog/broken.png": encoded(64, 64)[:2000],
        "test/dog/same.png": same,
        "test/dog/other.png": encoded(64, 64),
    }
    for name, data in files.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return files


def opened(base: Path, **source: object) -> Source:
    declared = {"type": "folder", "path": "images"} | source
    return Dataset.model_validate({"source": declared}).open("pets", base, base / "cache")


def look(base: Path, most: int = 100, seconds: float | None = None, **source: object) -> Survey:
    dataset = Dataset.model_validate({"source": {"type": "folder", "path": "images"} | source})
    return survey(
        dataset.open("pets", base, base / "cache"), dataset.decoding, most=most, seconds=seconds
    )


def test_the_figures_are_those_of_the_images(tmp_path: Path, images: dict[str, bytes]) -> None:
    sizes = sorted(map(len, images.values()))
    assert look(tmp_path).as_data() == {
        "images": 9,
        "looked_at": 9,
        "bytes": sum(sizes),
        "classes": {"train": {"cat": 4, "dog": 3}, "test": {"dog": 2}},
        "width_range": (31, 50, 100),
        "height_range": (40, 48, 200),
        "bytes_range": (sizes[0], sizes[4], sizes[-1]),
        "captioned": 0,
        "caption_words_range": None,
        "transparent": 1,
        "flat": 1,
        "dark": 0,
        "single_channel": 1,
        "tiny": 1,
        "turned": 0,
        "rescaled": 0,
        "unreadable": 1,
        "unusable": 0,
        "same": [["dog/same.png", "dog/same.png"]],
    }


def test_a_person_reads_the_same(tmp_path: Path, images: dict[str, bytes]) -> None:
    said = list(look(tmp_path).sentences())
    assert said[0] == "9 images of 2 classes: 7 to train on, 2 to test on"
    assert said[1:4] == [
        "train: cat (4), dog (3)", "test: dog (2)", "1 class has no image to test on: 'cat'"
    ]  # fmt: skip
    assert (
        said[4] == "sizes: width 31 / 50 / 100, height 40 / 48 / 200 pixels (least / median / most)"
    )
    assert said[5].startswith("files: ")
    assert said[6:10] == [
        "1 image has transparency, shown on white (`background` sets a colour): 'cat/clear.png'",
        "1 image is of one colour alone: 'cat/flat.png'",
        "1 image has one channel, shown as grey: 'cat/grey.png'",
        "1 image has a side below 32 pixels: 'dog/tiny.png'",
    ]
    assert said[10].startswith("1 image cannot be decoded and will be left out, such as dog/broken")
    assert said[11:] == [
        "2 images have the same bytes as another, 2 of them as one in the other split, such as "
        "'dog/same.png', 'dog/same.png'"
    ]


def test_images_that_are_nearly_black_are_told(tmp_path: Path) -> None:
    twelve_bits = RNG.integers(0, 4096, (40, 40), dtype=np.uint16)
    pictures = {
        "bits": twelve_bits, "labels": RNG.integers(0, 16, (40, 40), dtype=np.uint8),
        "scaled": twelve_bits * 16, "night": RNG.integers(0, 17, (40, 40), dtype=np.uint8),
    }  # fmt: skip
    (tmp_path / "images" / "cat").mkdir(parents=True)
    for name, values in pictures.items():
        Image.fromarray(values).save(tmp_path / "images" / "cat" / f"{name}.png")
    found = look(tmp_path)
    assert found.odd("dark") == ["cat/bits.png", "cat/labels.png"]
    assert (
        "2 images are nearly black: no level of 255 is above 15: 'cat/bits.png', 'cat/labels.png'"
        in list(found.sentences())
    )


def test_many_classes_are_told_by_the_largest_and_the_smallest(tmp_path: Path) -> None:
    for number, concept in enumerate("abcdefg", start=1):
        for image in range(number):
            path = tmp_path / "images" / concept / f"{image}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    said = list(look(tmp_path, test_share=0).sentences())
    assert said[1] == "train: g (7), f (6), e (5), …, b (2), a (1); median 4"


def test_captions_are_counted_in_words(tmp_path: Path, images: dict[str, bytes]) -> None:
    table = "path,caption\ntrain/cat/plain.png,a cat\ntrain/cat/plain.png,a cat that sleeps\n"
    (tmp_path / "captions.csv").write_text(table + "test/dog/other.png,dog\n")
    looked = look(tmp_path, captions="captions.csv")
    assert "captions: 2 of 9 images have up to 2, of 1 / 2 / 4 words" in looked.sentences()
    assert looked.as_data()["caption_words_range"] == (1, 2, 4)


def test_of_large_datasets_a_part_is_looked_at_and_that_is_said(
    tmp_path: Path, images: dict[str, bytes]
) -> None:
    looked = look(tmp_path, most=4)
    assert looked.sights["key"].to_list() == ["dog/other.png", "cat/flat.png", "dog/broken.png"]
    assert looked.as_data()["bytes"] == sum(map(len, images.values()))  # of all: files have a size
    assert "1 image of 3 looked at is of one colour alone: 'cat/flat.png'" in looked.sentences()


def test_a_look_ends_after_its_time(
    tmp_path: Path, images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert look(tmp_path, seconds=2.5).sights.height == 3
    clock = iter(range(100))
    assert look(tmp_path).sights.height == 9


def test_a_listing_reads_no_image_and_has_the_same_samples(
    tmp_path: Path, images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "".join(f"images/{name},{name.split('/')[0]},{name.split('/')[1]}\n" for name in images)
    (tmp_path / "t.csv").write_text("path,split,concept\n" + rows)
    for declared in ({}, {"type": "manifest", "path": "t.csv"}):
        whole = inspect(opened(tmp_path, **declared)).scan
        with monkeypatch.context() as patched:
            patched.setattr(Path, "read_bytes", None)
            patched.setattr("fomo_dagster.data.sources.files.digest_of_file", None)
            listed = listing(opened(tmp_path, **declared))
        assert listed.bytes == sum(map(len, images.values()))
        assert set(listed.scan["digest"]) == {""}
        kept = pl.exclude("digest", "reference")
        assert listed.scan.select(kept).equals(whole.select(kept))


def test_a_link_to_nothing_is_unreadable_and_a_lost_image_ends_the_look(
    tmp_path: Path, images: dict[str, bytes]
) -> None:
    gone = tmp_path / "images" / "train" / "cat" / "gone.png"
    gone.symlink_to("nowhere.png")
    reasons = look(tmp_path).unreadable.select("key", "reason").rows()
    assert ("cat/gone.png", "a link to nothing") in reasons
    rows = "path,concept\nimages/train/cat/plain.png,cat\nimages/lost.png,dog\n"
    (tmp_path / "t.csv").write_text(rows)
    with pytest.raises(DataError, match=r"1 of 2 images cannot be read: .*lost\.png"):
        look(tmp_path, type="manifest", path="t.csv")
