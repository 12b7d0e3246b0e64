"""The galleries of a project. A fault of one is a `Trouble`, and leaves the others alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fomo_dagster.experiment.declared_datasets import Datasets, load_datasets
from fomo_dagster.experiment.experiment_sets import ExperimentSet, Trouble, attempted
from fomo_dagster.experiment.gallery import (
    LoadedGallery,
    find_gallery,
    gallery_files,
    load_gallery,
)
from fomo_dagster.galleries.declaration import reference_of


def gallery_named(name_or_path: str, project: Path) -> ExperimentSet | None:
    """The gallery that a name or a path stands for, as a set of no experiments; None for what names
    none. Raises `InputError` as `load_gallery`."""
    path = find_gallery(name_or_path, project)
    if path is None:
        return None
    gallery = load_gallery(path, project, load_datasets(project))
    return ExperimentSet(gallery.reference, path, None, (), gallery=gallery)


def load_galleries(project: Path, datasets: Datasets) -> tuple[list[LoadedGallery], list[Trouble]]:
    """The galleries of a project, and those that cannot be used. datasets: what it declares."""
    loaded, troubles = [], []
    for name, path in gallery_files(project).items():
        found = attempted(partial(load_gallery, path, project, datasets), path)
        if isinstance(found, LoadedGallery):
            loaded.append(found)
        else:
            troubles.append(Trouble(reference_of(name), path, found))
    return loaded, troubles
