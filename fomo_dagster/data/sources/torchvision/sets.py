"""The classification sets that torchvision reads: how each names its splits, files and classes.

The sets that the benchmark holds have its class names where they are known (DTD's, CIFAR-100's and
Flowers102's own; SUN397's without the underscores; countries by their names) and its splits where
torchvision has them: DTD and FGVCAircraft leave out the validation images, Flowers102 trains on the
6,149 images that torchvision calls "test" and tests on those that it calls "train". The benchmark's
GTSRB, SUN397 and Caltech splits are its own: here GTSRB has its official ones, and the others hold
out a share. Left out are sets whose labels are no classes (boxes, masks, captions, pairs).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

Files = Callable[[Any], Iterable[tuple[str, int | None]]]  # an opened set -> (path, class) a sample
Names = Callable[[Any], Sequence[str]]  # an opened set -> its classes, by number

NAMES = Path(__file__).with_name("names.json")
DIGITS = tuple("0123456789")


def _own(opened: Any) -> Sequence[str]:
    classes: Sequence[str] = opened.classes
    return classes


def _spaced(opened: Any) -> list[str]:
    """`apartment_building/outdoor` -> `apartment building outdoor`."""
    return [re.sub("[_/ ]+", " ", name).strip() for name in opened.classes]


def _split_words(opened: Any) -> list[str]:
    """`HerbaceousVegetation` -> `herbaceous vegetation`."""
    return [re.sub("(?<=[a-z])(?=[A-Z])", " ", name).lower() for name in opened.classes]


def _digits(_: Any) -> Sequence[str]:
    return DIGITS


@cache
def _written_down() -> dict[str, dict[str, str]]:
    names: dict[str, dict[str, str]] = json.loads(NAMES.read_text(encoding="utf-8"))
    return names


def _written_in(table: str) -> Names:
    """The names in our own table for those of a set, which are codes; unknown codes stay."""

    def names(opened: Any) -> list[str]:
        known = _written_down()[table]
        codes = getattr(opened, "classes", None) or sorted(known)
        return [known.get(code, code) for code in codes]

    return names


def _caltech_101(opened: Any) -> list[str]:
    return [name.replace("_", " ") for name in opened.categories]


def _caltech_256(opened: Any) -> list[str]:
    """`009.bear` -> `bear`, `145.motorbikes-101` -> `motorbikes`."""
    shown = [re.sub(r"^\d+\.|-101$", "", name) for name in opened.categories]
    return [name.replace("-", " ") for name in shown]


def _caltech_101_files(opened: Any) -> list[tuple[str, int]]:
    folder = Path(opened.root) / "101_ObjectCategories"
    return [
        (str(folder / opened.categories[label] / f"image_{number:04d}.jpg"), label)
        for label, number in zip(opened.y, opened.index, strict=True)
    ]


def _caltech_256_files(opened: Any) -> list[tuple[str, int]]:
    folder = Path(opened.root) / "256_ObjectCategories"
    return [
        (str(folder / opened.categories[label] / f"{label + 1:03d}_{number:04d}.jpg"), label)
        for label, number in zip(opened.y, opened.index, strict=True)
    ]


def _gtsrb_files(opened: Any) -> list[tuple[str, int | None]]:
    """By the numbers of the folders of training images (`00014`). torchvision counts the folders
    that are there, so that all numbers after a missing or a further one would be others."""
    if opened._split != "train":
        return list(opened._samples)
    folders = [(path, Path(path).parent.name) for path, _ in opened._samples]
    return [(path, int(name) if name.isdecimal() else None) for path, name in folders]


def by_loader(opened: Any) -> list[tuple[str, int]]:
    """Of a set that was opened with a loader that returns the path it is given."""
    return [opened[number] for number in range(len(opened))]


@dataclass(frozen=True)
class TorchvisionSet:
    """One of torchvision's classes.

    layout: what it reads below its root, as a glob pattern.
    names: its classes.
    train, test: the splits, in torchvision's words, that ours are made of; without any for test, a
        share is held out.
    argument: the constructor's argument that takes a split: `split`, the boolean `train`, or none.
    files: the image files; None if it holds arrays.
    """

    layout: str
    names: Names = _own
    train: tuple[str, ...] = ("train",)
    test: tuple[str, ...] = ("test",)
    argument: str | None = "split"
    files: Files | None = by_loader

    def constructor_arguments(self, split: str) -> dict[str, Any]:
        """What the class is made with, beside root and download, to read one of its splits."""
        arguments: dict[str, Any] = {}
        if self.files is by_loader:
            arguments["loader"] = str
        if self.argument == "train":
            arguments["train"] = split == "train"
        elif self.argument is not None:
            arguments[self.argument] = split
        return arguments


def _arrays(layout: str, names: Names = _own, **others: Any) -> TorchvisionSet:
    return TorchvisionSet(layout, names, files=None, **{"argument": "train", **others})


SETS: dict[str, TorchvisionSet] = {
    "CIFAR10": _arrays("cifar-10-batches-py/*"),
    "CIFAR100": _arrays("cifar-100-python/*"),
    "MNIST": _arrays("MNIST/*/*", _digits),
    "FashionMNIST": _arrays("FashionMNIST/*/*"),
    "KMNIST": _arrays("KMNIST/*/*"),
    "QMNIST": _arrays("QMNIST/*/*", _digits),
    "USPS": _arrays("usps*.bz2", _digits),
    "SEMEION": _arrays("semeion.data", _digits, argument=None, test=()),
    "SVHN": _arrays("*_32x32.mat", _digits, argument="split"),
    "STL10": _arrays("stl10_binary/*", argument="split"),
    "DTD": TorchvisionSet("dtd/dtd"),
    "EuroSAT": TorchvisionSet("eurosat/2750", _split_words, test=(), argument=None),
    "Food101": TorchvisionSet("food-101", _spaced),
    "GTSRB": TorchvisionSet("gtsrb", _written_in("GTSRB"), files=_gtsrb_files),
    "OxfordIIITPet": TorchvisionSet(
        "oxford-iiit-pet",
        train=("trainval",),
        files=lambda opened: zip(map(str, opened._images), opened._labels, strict=True),
    ),
    "Flowers102": TorchvisionSet("flowers-102", train=("test",), test=("train",)),
    "FGVCAircraft": TorchvisionSet("fgvc-aircraft-2013b"),
    "Country211": TorchvisionSet("country211", _written_in("Country211")),
    "SUN397": TorchvisionSet("SUN397", _spaced, test=(), argument=None),
    "Caltech101": TorchvisionSet(
        "caltech101/101_ObjectCategories", _caltech_101,
        test=(), argument=None, files=_caltech_101_files,
    ),
    "Caltech256": TorchvisionSet(
        "caltech256/256_ObjectCategories", _caltech_256,
        test=(), argument=None, files=_caltech_256_files,
    ),
    "StanfordCars": TorchvisionSet("stanford_cars"),
    "RenderedSST2": TorchvisionSet("rendered-sst2"),
    "Imagenette": TorchvisionSet(
        "imagenette2", lambda opened: [synonyms[0] for synonyms in opened.classes], test=("val",)
    ),
}  # fmt: skip
