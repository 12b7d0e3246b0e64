"""Where things are in a local copy of the benchmark's release, and its class lists.

A release is two folders: a copy of its repository (info files, class lists, streams) and the images
(`<FOLDER>.tar`, or `<FOLDER>/` extracted). Info files are read by `info_files.py`, images by
`data/sources/release`. Nothing is downloaded here.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fomo_dagster.data.benchmark.registry import BenchmarkDataset, find
from fomo_dagster.data.benchmark.streams import FOLDER as STREAMS_FOLDER
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.texts import as_text, class_name

RELEASE_VARIABLE = "FOMO_RELEASE"  # the copy of the repository
IMAGES_VARIABLE = "FOMO_RELEASE_IMAGES"
INFO_FOLDER = "data_lib/00_info"
IMAGES_FOLDER = "data"  # in the copy of the repository, where nothing else is said
MOST_NAMED = 5  # entries of a folder that is no release
RESIZED = 224  # short side of the resized copies, in pixels; part of their names

# Two datasets share the classes of another; the second of them lists them in another order.
SAME_CLASSES = {"imagenet_s": "imagenet", "imagenet_v2": "imagenet"}
SORTED_CLASSES = ("imagenet_v2",)


@dataclass(frozen=True)
class Release:
    """A local copy: `root` is the repository's, `images` holds the tars or folders."""

    root: Path
    images: Path

    @classmethod
    def locate(cls, root: Path | None, images: Path | None) -> Release:
        """The copy at these paths or, where they are None, at those of the environment:
        FOMO_RELEASE, and FOMO_RELEASE_IMAGES or else the folder `data` in the former.

        Raises `InputError` if neither says where it is, or there is none.
        """
        root = root or _from_environment(RELEASE_VARIABLE)
        if root is None:
            raise InputError(
                "where is the benchmark's release? Set the environment variable "
                f"{RELEASE_VARIABLE} to a copy of its repository (the folder with data_lib/00_info "
                "and stream_construction), or give the dataset's source a `release`"
            )
        images = images or _from_environment(IMAGES_VARIABLE) or root / IMAGES_FOLDER
        release = cls(root, images)
        if not release.info_folder.is_dir():
            raise InputError(
                f"{root} is no copy of the benchmark's repository: {_found_instead(root)}. Set "
                f"{RELEASE_VARIABLE}, or the dataset's `release`, to the folder with {INFO_FOLDER} "
                f"and {STREAMS_FOLDER}"
            )
        return release

    @property
    def info_folder(self) -> Path:
        """Info files and class lists."""
        return self.root / INFO_FOLDER

    @property
    def streams_folder(self) -> Path:
        """The released orders of concepts."""
        return self.root / STREAMS_FOLDER

    def archive(self, dataset: BenchmarkDataset) -> Path:
        """The tar of a dataset's images, whether or not it is there."""
        return self.images / f"{dataset.folder}.tar"

    def folder(self, dataset: BenchmarkDataset) -> Path:
        """The extracted images, whether or not they are there."""
        return self.images / dataset.folder

    def info_file(self, dataset: BenchmarkDataset, split: str, *, resized: bool = False) -> Path:
        """The file that lists a split ("train" or "test"), whether or not it is there."""
        name = split_name(dataset, split)
        suffix = f"_{RESIZED}" if resized else ""
        return self.info_folder / f"{dataset.folder}_{name}{suffix}.json"

    def class_names(self, dataset: BenchmarkDataset) -> tuple[str, ...] | None:
        """The classes in the order of their numbers; None for a dataset without a class list.

        Raises `DataError` if the list is not there or not a list of distinct names.
        """
        if dataset.classes is None:
            return None
        path = self._class_list(dataset)
        if not path.is_file() and dataset.name in SAME_CLASSES:
            names = self.class_names(find(SAME_CLASSES[dataset.name])) or ()
            in_order = dataset.name in SORTED_CLASSES
            return tuple(sorted(names, key=str.lower)) if in_order else names
        names = read_json(path)
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise DataError(f"{path} must hold one JSON list of class names")
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise DataError(f"{path} lists classes twice: {', '.join(map(repr, twice[:5]))}")
        return tuple(class_name(as_text(name)) for name in names)

    def _class_list(self, dataset: BenchmarkDataset) -> Path:
        return self.info_folder / f"{dataset.folder}_classnames.json"


def split_name(dataset: BenchmarkDataset, split: str) -> str:
    """The release's name for the split "train" or "test" of a dataset."""
    return {"train": dataset.train_split, "test": dataset.test_split}[split]


def resized_folder(dataset: BenchmarkDataset, split: str) -> str:
    """The folder of a split's resized copies, inside the dataset's folder."""
    return f"{dataset.folder}_{split_name(dataset, split)}_{RESIZED}"


def read_json(path: Path) -> Any:
    """The content of one of the release's files. Raises `DataError` if it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path} of the release: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} of the release is not JSON: {error}") from error


def _found_instead(root: Path) -> str:
    """What there is where a copy of the repository should be, and the one that may be meant."""
    try:
        entries = sorted(root.iterdir())
    except FileNotFoundError:
        return "it does not exist"
    except OSError as error:
        return f"{error.strerror}"
    names = ", ".join(path.name for path in entries[:MOST_NAMED])
    more = f" and {len(entries) - MOST_NAMED} more" if len(entries) > MOST_NAMED else ""
    meant = next((p for p in (*root.parents, *entries) if (p / INFO_FOLDER).is_dir()), None)
    hint = f"; {meant} is one" if meant is not None else ""
    return f"it has no folder {INFO_FOLDER}, but {names or 'nothing at all'}{more}{hint}"


def _from_environment(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(os.path.abspath(Path(value).expanduser())) if value else None
