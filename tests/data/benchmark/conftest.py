"""A copy of the benchmark's release in its exact layout, with a few small images."""

from __future__ import annotations

import copy
import json
import shutil
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fomo_dagster.data.benchmark import registry
from fomo_dagster.data.dataset import Dataset
from fomo_dagster.experiment import benchmark
from fomo_dagster.yaml_files import read_mapping

FIELDS = (
    "classname", "default_caption", "primer_caption", "synthetic_caption",
    "synthetic_merged_caption", "target",
)  # fmt: skip


class Copy:
    """A release below `base`; the registry expects what was put into it."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base = base
        self.root = base / "repository"
        self.images = base / "images"
        self.info = self.root / "data_lib" / "00_info"
        self.info.mkdir(parents=True)
        self.images.mkdir()
        self.seeds = 0
        self.table = copy.deepcopy(the_table())
        monkeypatch.setattr(registry, "read_mapping", lambda _: self.table)
        monkeypatch.setenv("FOMO_RELEASE", str(self.root))
        monkeypatch.setenv("FOMO_RELEASE_IMAGES", str(self.images))
        self.expect()

    def expect(self, handle: str | None = None, **counts: Any) -> None:
        """Change what the registry says of a dataset."""
        if handle is not None:
            self.table[handle].update(counts)
        forget_the_registry()

    def add(
        self,
        handle: str,
        train: dict[str, dict[str, Any]],
        test: dict[str, dict[str, Any]],
        classes: list[str] | None,
    ) -> None:
        """Info files, class list and images (extracted) of a dataset; a row gives the fields that
        are not null."""
        dataset = registry.find(handle)
        self.expect(handle, train=len(train), test=len(test), classes=classes and len(classes))
        if classes is not None:
            self.write(f"{dataset.folder}_classnames.json", classes)
        for name, rows in ((dataset.train_split, train), (dataset.test_split, test)):
            if rows:
                self.write_info(f"{dataset.folder}_{name}.json", rows)
                for place in rows:
                    self.draw(dataset.folder, place)

    def add_resized(self, handle: str, split: str, rows: dict[str, dict[str, Any]]) -> None:
        """The info file and images of the copies at 224 pixels."""
        folder = registry.find(handle).folder
        below = {f"{folder}_{split}_224/{place}": row for place, row in rows.items()}
        self.write_info(f"{folder}_{split}_224.json", below)
        for place in below:
            self.draw(folder, place)

    def write_info(self, name: str, rows: dict[str, dict[str, Any]]) -> None:
        empty = dict.fromkeys(FIELDS)
        self.write(name, {place: {**empty, **row} for place, row in rows.items()})

    def write(self, name: str, content: Any) -> None:
        (self.info / name).write_text(json.dumps(content))

    def draw(self, folder: str, place: str) -> bytes:
        """A picture unlike all others."""
        self.seeds += 1
        path = self.images / folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = (self.seeds * 37 % 256, self.seeds * 91 % 256, self.seeds % 256)
        Image.new("RGB", (18, 18), colour).save(path)
        return path.read_bytes()

    def pack(self, handle: str) -> Path:
        """Put a dataset's images into its tar, as they were fetched."""
        folder = registry.find(handle).folder
        path = self.images / f"{folder}.tar"
        with tarfile.open(path, "w") as tar:
            tar.add(self.images / folder, folder)
        shutil.rmtree(self.images / folder)
        return path

    def source(self, name: str, **options: Any) -> Any:
        """The source of a dataset that says nothing but that it is the release's."""
        declaration = {"source": {"type": "fomo_release", **options}}
        dataset = Dataset.model_validate(benchmark.with_benchmark_values(name, declaration))
        return dataset.open(name, self.base, self.base / "cache")


@cache
def the_table() -> dict[str, Any]:
    """What the file says; reading it takes longer than most tests."""
    return read_mapping(registry.REGISTRY_FILE)


def forget_the_registry() -> None:
    for remembered in (
        registry.benchmark_datasets, registry.by_any_name, benchmark.benchmark_declarations,
    ):  # fmt: skip
        remembered.cache_clear()


@pytest.fixture
def release(tmp_path, monkeypatch):
    """An empty release; the environment says where it is."""
    yield Copy(tmp_path / "release", monkeypatch)
    monkeypatch.undo()
    forget_the_registry()
