"""The gallery file, `galleries/<name>.yaml`, with the dataset that it names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from fomo_dagster.data.benchmark.registry import by_any_name
from fomo_dagster.data.dataset import Dataset
from fomo_dagster.errors import InputError, nearest
from fomo_dagster.experiment.declared_datasets import Datasets, with_shipped
from fomo_dagster.experiment.files import files_by_name, find_declared, name_of_file
from fomo_dagster.experiment.validating import Place, validated
from fomo_dagster.galleries.declaration import FOLDER, DeclaredGallery, reference_of
from fomo_dagster.yaml_files import read_mapping


@dataclass(frozen=True)
class LoadedGallery:
    """A gallery with the dataset that it names, and the folder that the dataset's paths start
    from."""

    name: str
    path: Path
    declared: DeclaredGallery
    dataset: Dataset
    base: Path

    @property
    def reference(self) -> str:
        """As commands know it, and the key of its asset."""
        return reference_of(self.name)


def gallery_files(project: Path) -> dict[str, Path]:
    """Gallery name → file, as `experiment_files`."""
    return files_by_name(project / FOLDER)


def find_gallery(name_or_path: str, project: Path) -> Path | None:
    """The file that `galleries/NAME`, or a path to one, stands for, as `find_declared`."""
    return find_declared(name_or_path, project, FOLDER, "gallery")


def load_gallery(path: Path, project: Path, datasets: Datasets) -> LoadedGallery:
    """The gallery of a file. datasets: what the project declares. Raises `InputError` that names
    the file, the key, its value and the nearest valid one."""
    name = name_of_file(path)
    known = with_shipped(datasets, project)
    declared: DeclaredGallery = validated(
        TypeAdapter(DeclaredGallery), read_mapping(path), str(path), DeclaredGallery,
        {*known.declared, *known.wrong}, place=Place(path),
    )  # fmt: skip
    said = f"{Place(path).begin(str(path), ['dataset'])}: dataset names {declared.dataset!r}, which"
    if declared.dataset in known.wrong:
        raise InputError(f"{said} cannot be used: {known.wrong[declared.dataset]}")
    if declared.dataset not in known.declared:
        raise InputError(
            f"{said} is not declared in datasets/; "
            + nearest(declared.dataset, {*known.declared, *by_any_name()})
        )
    dataset = known.declared[declared.dataset]
    if dataset.source.access == "streamed":
        raise InputError(
            f"{said} is streamed (index: false), so that nobody knows its samples: name a dataset "
            "with an index"
        )
    return LoadedGallery(name, path, declared, dataset, known.bases[declared.dataset])


def gallery_schema() -> dict[str, Any]:
    """The JSON schema of the gallery file, for editors."""
    return DeclaredGallery.model_json_schema()
