"""Reading what the files of `datasets/` declare: one that is wrong leaves the others alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.benchmark import benchmark_declarations, with_benchmark_values
from fomo_dagster.experiment.files import declaration_files
from fomo_dagster.experiment.names import check_safe_name
from fomo_dagster.experiment.validating import Place, validated
from fomo_dagster.shipped import shipped_folder
from fomo_dagster.yaml_files import read_parts, text_of

_NAME = re.compile(r"^['\"]?([A-Za-z0-9][A-Za-z0-9_]*)['\"]?\s*:(?:\s|$)", re.MULTILINE)


@dataclass(frozen=True)
class Datasets:
    """What the files of `datasets/` declare.

    bases: dataset → the folder that its paths start from. wrong: dataset → why its declaration
    cannot be used. unread: why files cannot be read of which nobody knows what they declare.
    """

    declared: Mapping[str, Dataset]
    bases: Mapping[str, Path]
    wrong: Mapping[str, str]
    unread: tuple[str, ...]

    @property
    def troubles(self) -> list[str]:
        """Everything that is wrong, each once."""
        return list(dict.fromkeys((*self.unread, *self.wrong.values())))


def load_datasets(project: Path) -> Datasets:
    """The project's dataset declarations; what is wrong with some leaves the others alone."""
    declared: dict[str, Dataset] = {}
    origins: dict[str, Path] = {}
    wrong: dict[str, str] = {}
    unread: list[str] = []
    for path in declaration_files(project / "datasets"):
        try:
            parts = dict(read_parts(path))
        except InputError as error:
            parts = dict.fromkeys(_names_in(path), error)
            unread += [] if parts else [str(error)]
        if _is_nameless(parts):
            parts = {path.stem: _nameless(path)}
        for name, declaration in parts.items():
            try:
                if name in origins:
                    raise InputError(
                        f"{path}: dataset {name!r} is declared in {origins[name]} too: rename one"
                    )
                declared[name] = _dataset(name, declaration, path)
            except InputError as error:
                wrong.setdefault(name, str(error))
            origins.setdefault(name, path)
    for name in wrong:
        declared.pop(name, None)
    return Datasets(declared, {name: p.parent for name, p in origins.items()}, wrong, tuple(unread))


@cache
def shipped_datasets() -> Datasets:
    """The declarations that ship with the package; a project's own of the same name go before."""
    return load_datasets(shipped_folder())


def with_shipped(known: Datasets, project: Path) -> Datasets:
    """With the datasets that ship with the package and the benchmark's, where none of those that
    are known has the name."""
    datasets, bases, wrong = dict(known.declared), dict(known.bases), dict(known.wrong)
    shipped = shipped_datasets()
    for name, dataset in {**benchmark_declarations(), **shipped.declared}.items():
        if name not in datasets and known.unread:
            wrong.setdefault(name, f"{known.unread[0]}; it may declare {name}")
        if name not in wrong:
            datasets.setdefault(name, dataset)
            bases.setdefault(name, shipped.bases.get(name, project))
    return Datasets(datasets, bases, wrong, known.unread)


def _dataset(name: str, declaration: Any, path: Path) -> Dataset:
    if isinstance(declaration, InputError):
        raise declaration
    try:
        check_safe_name(name)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    where = f"{path}: dataset {name!r}"
    whole = completed(name, declaration, where)
    dataset: Dataset = validated(
        TypeAdapter(Dataset), whole, where, Dataset, place=Place(path, (name,))
    )
    return dataset


def _is_nameless(parts: Mapping[str, Any]) -> bool:
    """Whether a file has what a dataset has in place of datasets by their names."""
    source = parts.get("source")
    is_dataset = isinstance(source, dict) and "source" in source
    return source is not None and not is_dataset and parts.keys() <= Dataset.model_fields.keys()


def _nameless(path: Path) -> InputError:
    return InputError(
        f"{path} begins with the keys of a dataset, and a file of this folder with the names of "
        f"datasets: put what it declares below a name, indented, such as `{path.stem}:`"
    )


def _names_in(path: Path) -> list[str]:
    """The names at the beginnings of the lines of a file that is no YAML."""
    try:
        return _NAME.findall(text_of(path))
    except InputError:
        return []


def completed(name: str, declaration: Any, where: str) -> Any:
    """A declaration with what the benchmark knows of the dataset. Raises `InputError`."""
    try:
        return with_benchmark_values(name, declaration)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
