"""torchvision's sets in its own on-disk formats, written here: splits, classes, bytes, caching."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import requests
import scipy.io
from PIL import Image
from torchvision import datasets

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.samples import SCAN
from fomo_dagster.data.sources.source import Source
from fomo_dagster.data.sources.torchvision.sets import SETS
from fomo_dagster.data.sources.torchvision.source import TorchvisionSource
from fomo_dagster.errors import DataError, InputError


def source(base: Path, dataset: str, **options: object) -> Source:
    declared = TorchvisionSource.model_validate({"dataset": dataset, "root": "data", **options})
    return Dataset(source=declared).open("set", base, base / "cache")


def found(source: Source) -> list[tuple[str, str, str]]:
    return source.scan().select("split", "key", "concept").rows()


def jpeg(path: Path, grey: int = 9) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (grey, grey, grey)).save(path)
    return path.read_bytes()


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def write_mnist(root: Path, images: np.ndarray, labels: list[int], split: str = "train") -> None:
    """The files of an IDX set: 32-bit big-endian header, then bytes."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    prefix = raw / ("train" if split == "train" else "t10k")
    header = struct.pack(">4i", 0x803, *images.shape)
    Path(f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
    header = struct.pack(">2i", 0x801, len(labels))
    Path(f"{prefix}-labels-idx1-ubyte").write_bytes(header + bytes(labels))


@pytest.fixture
def mnist(tmp_path: Path) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    write_mnist(tmp_path / "data", images, [7, 0, 7])
    write_mnist(tmp_path / "data", images[:1] // 2, [3], "test")
    return images


def test_every_set_that_can_be_declared_is_known_and_is_torchvisions() -> None:
    declared = get_args(TorchvisionSource.model_fields["dataset"].annotation)
    assert sorted(declared) == sorted(SETS)
    assert all(hasattr(datasets, name) for name in declared)


def test_arrays_become_pngs_of_the_same_pixels(tmp_path: Path, mnist: np.ndarray) -> None:
    opened = source(tmp_path, "MNIST")
    scan = opened.scan()
    assert dict(scan.schema) == SCAN
    assert found(opened) == [
        ("test", "test/000000", "3"),
        ("train", "train/000000", "7"),
        ("train", "train/000001", "0"),
        ("train", "train/000002", "7"),
    ]
    sent = pickle.loads(pickle.dumps(opened))
    for reference, expected in zip(scan["reference"], [mnist[0] // 2, *mnist], strict=True):
        with Image.open(io.BytesIO(sent.read(reference))) as image:
            assert image.format == "PNG"
            assert (np.asarray(image) == expected).all()


def test_an_unchanged_root_is_not_opened_again(
    tmp_path: Path, mnist: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = source(tmp_path, "MNIST").scan()
    opened = []
    load = datasets.MNIST._load_data
    monkeypatch.setattr(datasets.MNIST, "_load_data", lambda self: opened.append(1) or load(self))
    assert source(tmp_path, "MNIST").scan().equals(first)
    assert opened == []
    mnist[1] ^= 255
    write_mnist(tmp_path / "data", mnist, [7, 0, 7])
    changed = source(tmp_path, "MNIST").scan()
    assert opened
    assert (changed["digest"] != first["digest"]).to_list() == [False, False, True, False]


def test_an_array_that_changed_after_the_scan_is_not_read(
    tmp_path: Path, mnist: np.ndarray
) -> None:
    opened = source(tmp_path, "MNIST")
    reference = opened.scan()["reference"][2]
    mnist[1] ^= 255
    write_mnist(tmp_path / "data", mnist, [7, 0, 7])
    with pytest.raises(DataError, match=r"image 1 of train .* changed after it was scanned"):
        opened.read(reference)


def test_the_splits_can_be_chosen(tmp_path: Path, mnist: np.ndarray) -> None:
    swapped = {"splits": {"train": ["test"], "test": ["train"]}}
    assert [row[0] for row in found(source(tmp_path, "MNIST", **swapped))] == [
        "test", "test", "test", "train"
    ]  # fmt: skip
    only = {"splits": {"test": ["train"]}}
    assert {row[0] for row in found(source(tmp_path, "MNIST", **only))} == {"test"}
    with pytest.raises(InputError, match=r"no split 'tset'; did you mean 'test'"):
        source(tmp_path, "MNIST", splits={"test": ["tset"]}).scan()
    with pytest.raises(ValueError, match="one of the source's splits twice"):
        source(tmp_path, "MNIST", splits={"train": ["train"], "test": ["train"]})


def test_cifar_is_unpickled_only_where_its_checksums_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data" / "cifar-100-python"
    folder.mkdir(parents=True)
    pixels = np.arange(2 * 3072, dtype=np.int64).astype(np.uint8).reshape(2, 3072)
    contents: dict[str, dict[str, Any]] = {
        "train": {"data": pixels, "fine_labels": [1, 0]},
        "test": {"data": pixels[:1], "fine_labels": [1]},
        "meta": {"fine_label_names": ["apple", "aquarium_fish"]},
    }
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=r"CIFAR100 in .* is not there, or not whole"):
        source(tmp_path, "CIFAR100").scan()
    md5 = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in contents}
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", md5["train"]]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", md5["test"]]])
    monkeypatch.setattr(datasets.CIFAR100, "meta", {**datasets.CIFAR100.meta, "md5": md5["meta"]})
    opened = source(tmp_path, "CIFAR100")
    assert found(opened) == [
        ("test", "test/000000", "aquarium_fish"),
        ("train", "train/000000", "aquarium_fish"),
        ("train", "train/000001", "apple"),
    ]
    with Image.open(io.BytesIO(opened.read(opened.scan()["reference"][2]))) as image:
        channels = pixels[1].reshape(3, 32, 32).transpose(1, 2, 0)
        assert (np.asarray(image) == channels).all()


def test_files_are_taken_as_they_are(tmp_path: Path) -> None:
    base = tmp_path / "data" / "dtd" / "dtd"
    lists: dict[str, list[str]] = {}
    for split, concept, name in (
        ("train", "banded", "a"), ("train", "grid", "b"), ("val", "grid", "c"),
        ("test", "banded", "d"), ("test", "grid", "e"),
    ):  # fmt: skip
        jpeg(base / "images" / concept / f"{name}.jpg", ord(name))
        lists.setdefault(split, []).append(f"{concept}/{name}.jpg\n")
    for split, lines in lists.items():
        text(base / "labels" / f"{split}1.txt", "".join(lines))
    opened = source(tmp_path, "DTD")
    place = "dtd/dtd/images"
    assert found(opened) == [
        ("test", f"{place}/banded/d.jpg", "banded"),
        ("test", f"{place}/grid/e.jpg", "grid"),
        ("train", f"{place}/banded/a.jpg", "banded"),
        ("train", f"{place}/grid/b.jpg", "grid"),
    ]
    for _, key, _, _, _, reference in opened.scan().rows():
        assert opened.read(reference) == (tmp_path / "data" / key).read_bytes()
    with_validation = {"splits": {"train": ["train", "val"], "test": ["test"]}}
    assert len(found(source(tmp_path, "DTD", **with_validation))) == 5
    with pytest.raises(InputError, match="vla"):
        source(tmp_path, "DTD", splits={"train": ["vla"]}).scan()


def test_flowers_have_the_benchmarks_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "data" / "flowers-102"
    for number in range(1, 6):
        jpeg(base / "jpg" / f"image_{number:05d}.jpg", number)
    scipy.io.savemat(base / "imagelabels.mat", {"labels": [[1, 2, 1, 102, 2]]})
    scipy.io.savemat(base / "setid.mat", {"trnid": [[1, 2]], "valid": [[5, 5]], "tstid": [[3, 4]]})
    files = {
        kind: (name, hashlib.md5((base / name).read_bytes()).hexdigest())
        for kind, name in (("label", "imagelabels.mat"), ("setid", "setid.mat"))
    }
    monkeypatch.setattr(
        datasets.Flowers102, "_file_dict", {**datasets.Flowers102._file_dict, **files}
    )
    assert found(source(tmp_path, "Flowers102")) == [
        ("test", "flowers-102/jpg/image_00001.jpg", "pink primrose"),
        ("test", "flowers-102/jpg/image_00002.jpg", "hard-leaved pocket orchid"),
        ("train", "flowers-102/jpg/image_00003.jpg", "pink primrose"),
        ("train", "flowers-102/jpg/image_00004.jpg", "blackberry lily"),
    ]


def test_a_share_is_held_out_where_torchvision_has_no_splits(tmp_path: Path) -> None:
    for number in range(40):
        jpeg(tmp_path / "data" / "eurosat" / "2750" / "SeaLake" / f"SeaLake_{number}.jpg", number)
        jpeg(tmp_path / "data" / "eurosat" / "2750" / "AnnualCrop" / f"{number}.jpg", number)
    rows = found(source(tmp_path, "EuroSAT", test_share=0.3))
    assert {row[2] for row in rows} == {"annual crop", "sea lake"}
    assert 10 <= [row[0] for row in rows].count("test") <= 38
    assert {row[0] for row in found(source(tmp_path, "EuroSAT", test_share=0))} == {"train"}
    with pytest.raises(InputError, match="has no splits to choose"):
        source(tmp_path, "EuroSAT", splits={"train": ["train"]}).scan()


def test_codes_and_numbers_have_names(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for split in ("train", "test"):
        for code in ("FR", "KN", "XX"):
            jpeg(root / "country211" / split / code / "1.jpg")
    concepts = {row[2] for row in found(source(tmp_path, "Country211"))}
    assert concepts == {"France", "St. Kitts and Nevis", "XX"}

    for number in range(15):
        folder = root / "gtsrb" / "GTSRB" / "Training" / f"{number:05d}"
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "00000_00000.ppm")
    images = root / "gtsrb" / "GTSRB" / "Final_Test" / "Images"
    jpeg(images / "00000.ppm")
    text(root / "gtsrb" / "GT-final_test.csv", "Filename;Width;ClassId\n00000.ppm;8;42\n")
    rows = found(source(tmp_path, "GTSRB"))
    assert rows[0][::2] == ("test", "end of no overtaking by lorries")
    assert rows[-1][::2] == ("train", "stop")
    shutil.rmtree(root / "gtsrb" / "GTSRB" / "Training" / "00003")
    rest = found(source(tmp_path, "GTSRB"))
    assert rest == [row for row in rows if "/00003/" not in row[1]]


def test_other_layouts_list_their_own_files(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name in ("101_ObjectCategories/cougar_body", "101_ObjectCategories/BACKGROUND_Google"):
        jpeg(root / "caltech101" / name / "image_0001.jpg")
    assert found(source(tmp_path, "Caltech101")) == [
        ("train", "caltech101/101_ObjectCategories/cougar_body/image_0001.jpg", "cougar body")
    ]
    jpeg(root / "caltech256" / "256_ObjectCategories" / "001.ak47" / "001_0001.jpg")
    jpeg(root / "caltech256" / "256_ObjectCategories" / "002.car-side-101" / "002_0001.jpg")
    assert [row[2] for row in found(source(tmp_path, "Caltech256"))] == ["ak47", "car side"]
    jpeg(root / "SUN397" / "a" / "airport" / "indoor" / "sun_1.jpg")
    text(root / "SUN397" / "ClassName.txt", "/a/abbey\n/a/airport/indoor\n")
    assert found(source(tmp_path, "SUN397"))[0][2] == "airport indoor"
    for split in ("trainval", "test"):
        jpeg(root / "oxford-iiit-pet" / "images" / f"american_bulldog_{split}.jpg")
        text(
            root / "oxford-iiit-pet" / "annotations" / f"{split}.txt",
            f"american_bulldog_{split} 1 2 1\n",
        )
    assert [row[::2] for row in found(source(tmp_path, "OxfordIIITPet"))] == [
        ("test", "American Bulldog"), ("train", "American Bulldog")
    ]  # fmt: skip
    for split in ("train", "test"):
        jpeg(root / "food-101" / "images" / "apple_pie" / f"{split}.jpg")
        text(
            root / "food-101" / "meta" / f"{split}.json",
            json.dumps({"apple_pie": [f"apple_pie/{split}"]}),
        )
    assert [row[2] for row in found(source(tmp_path, "Food101"))] == ["apple pie"] * 2


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("opened", "w")


@pytest.mark.parametrize("name", ["train", "meta"])
def test_a_cifar_file_that_holds_code_runs_none_whatever_its_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data" / "cifar-100-python"
    folder.mkdir(parents=True)
    contents: dict[str, Any] = {
        "train": {"data": np.zeros((1, 3072), np.uint8), "fine_labels": [0]},
        "test": {"data": np.zeros((1, 3072), np.uint8), "fine_labels": [0]},
        "meta": {"fine_label_names": ["apple"]},
    }
    contents[name]["code"] = Hostile()
    for part, content in contents.items():
        (folder / part).write_bytes(pickle.dumps(content))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    with pytest.raises(InputError, match=r"names (_?io|builtins)\.open, and arrays were expected"):
        source(tmp_path, "CIFAR100").scan()
    assert not (tmp_path / "opened").exists()


def test_torchvision_s_downloads_have_a_limit_and_time_outs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def get(self: Any, url: str, **options: Any) -> requests.Response:
        asked.append((url, options["timeout"]))
        response = requests.Response()
        response.status_code, response.url = 200, url
        response.headers["Content-Length"], response.raw = str(2**40), io.BytesIO(b"much")
        return response

    monkeypatch.setattr(requests.Session, "get", get)
    with pytest.raises(InputError, match="exceeds the limit of 256 GiB per download"):
        source(tmp_path, "EuroSAT", download=True).scan()
    ((url, timeouts),) = asked  # and not once more, by http
    assert url.startswith("https://")
    assert all(seconds > 0 for seconds in timeouts)


def test_what_is_not_there_is_asked_for_and_never_downloaded_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(self: Any, url: str, **_: Any) -> None:
        asked.append(url)
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(requests.Session, "get", refuse)
    for name in ("MNIST", "EuroSAT", "SVHN"):
        with pytest.raises(InputError, match=r"put its files at .* or declare `download: true`"):
            source(tmp_path, name).scan()
    assert asked == []
    with pytest.raises(InputError, match=r"could not download MNIST: .*no route to host") as caught:
        source(tmp_path, "MNIST", download=True).scan()
    assert str(tmp_path / "data" / "MNIST") in str(caught.value)
    assert asked
    with pytest.raises(InputError, match="StanfordCars"):
        source(tmp_path, "StanfordCars", download=True).scan()


def test_torchvision_downloads_where_that_is_declared(
    tmp_path: Path, mnist: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, empty = tmp_path / "data" / "MNIST", tmp_path / "elsewhere"

    def fetch(url: str, download_root: str, filename: str, md5: str) -> None:
        name = filename.removesuffix(".gz")
        (Path(download_root) / name).write_bytes((ready / "raw" / name).read_bytes())

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fetch)
    declared = {"root": str(empty), "download": True}
    assert found(source(tmp_path, "MNIST", **declared)) == found(source(tmp_path, "MNIST"))
