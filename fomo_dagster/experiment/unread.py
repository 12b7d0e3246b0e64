"""Files of a project that look like declarations but are not read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.formats import has_image_suffix
from fomo_dagster.data.sources.files import resolved, shortlist
from fomo_dagster.data.sources.rows import SUFFIXES as TABLES
from fomo_dagster.experiment.comparison import FOLDER as COMPARISONS
from fomo_dagster.experiment.files import SUFFIXES, is_declaration
from fomo_dagster.experiment.loading import Loaded
from fomo_dagster.galleries.declaration import FOLDER as GALLERIES
from fomo_dagster.streams.growing import passed_over

NO_DECLARATIONS = (".md", ".rst", ".pyc")  # what people and Python leave beside them
SCHEMA = "schema.json"  # by which editors complete a declaration


def unread_files(project: Path, declared: Iterable[tuple[Dataset, Path]]) -> tuple[str, ...]:
    """A sentence for each folder of declarations that holds files which are not read.

    declared: datasets, and the folder that their paths start from; what they name is data. Folders
    in `experiments/` hold presets, which are read by their names.
    """
    experiments, datasets = project / "experiments", project / "datasets"
    others = (project / COMPARISONS, project / GALLERIES)
    data = {place for dataset, base in declared for place in dataset.source.named_paths(base)}
    found = {
        experiments: list(_others(experiments)),
        datasets: [
            path
            for path in (*_others(datasets), *_deeper(datasets))
            if not any(path.is_relative_to(place) for place in data)
        ],
        **{folder: [*_others(folder), *_deeper(folder)] for folder in others},
    }
    return tuple(
        f"{folder} holds files that are not read: {_named(paths, folder)}; declarations end in "
        f"{' or '.join(SUFFIXES)} and lie in the folder itself"
        for folder, paths in found.items()
        if paths
    )


def unread(project: Path, loaded: Sequence[Loaded]) -> tuple[str, ...]:
    """What `unread_files` says where these are the project's experiments, and a sentence for each
    folder of a growing stream that holds what is no arrival."""
    declared = (
        (dataset, one.bases[name]) for one in loaded for name, dataset in one.datasets.items()
    )
    growing = {
        resolved(one.base, one.experiment.stream.growing)
        for one in loaded
        if one.experiment.stream.growing is not None
    }
    others = {folder: passed_over(folder) for folder in sorted(growing)}
    return (
        *unread_files(project, declared),
        *(
            f"{folder} holds files that are no stages: {_named(paths, folder)}; a stage is a folder"
            f" or a table ({' '.join(TABLES)})"
            for folder, paths in others.items()
            if paths
        ),
    )


def _named(paths: Sequence[Path], folder: Path) -> str:
    return shortlist([path.relative_to(folder).as_posix() for path in paths])


def _others(folder: Path) -> Iterator[Path]:
    """The files there that are no declarations, without those that are meant for something else."""
    for path in _visible(folder):
        meant = path.name == SCHEMA or path.suffix.lower() in NO_DECLARATIONS
        if path.is_file() and not (meant or is_declaration(path) or has_image_suffix(path.name)):
            yield path


def _deeper(folder: Path) -> Iterator[Path]:
    """The declarations in folders below."""
    for inner in _visible(folder):
        if inner.is_dir():
            yield from (path for path in _visible(inner) if is_declaration(path))


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []
