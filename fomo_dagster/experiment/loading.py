"""Reading experiment files: YAML, `extends`, overrides, and errors that name the key.

A project is a folder with `experiments/*.yaml`, one experiment or sweep a file, and
`datasets/*.yaml` (see `declared_datasets`). What ships with the package is found by the same names
wherever the project itself has none of them. Which experiments a sweep is stands in
`experiment_sets`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from fomo_dagster.data.benchmark.registry import by_any_name
from fomo_dagster.data.dataset import Dataset
from fomo_dagster.errors import InputError, nearest
from fomo_dagster.experiment.declared_datasets import (
    Datasets,
    completed,
    load_datasets,
    shipped_datasets,
    with_shipped,
)
from fomo_dagster.experiment.extending import apply_override, merged
from fomo_dagster.experiment.files import check_has_no_twin, declaration_files, find_file
from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.experiment.sweeping import (
    EXTENDS,
    OF_FILES,
    SWEEP,
    grids_of,
)
from fomo_dagster.experiment.validating import Place, validated
from fomo_dagster.shipped import shipped_folder
from fomo_dagster.yaml_files import read_mapping


@dataclass(frozen=True)
class Loaded:
    """An experiment with the datasets it can name, the shipped ones and the benchmark's among them,
    and the folder its relative paths start from.

    path: its file. wrong: dataset → why its declaration cannot be used.
    sweep: the name of the sweep that it is one of; None if it stands in a file of its own.
    swept: what tells it from the others, as tables show it.
    replicate_of: the name that it shares with those that differ from it in seeds alone; None if it
    is alone. replicate: what tells it from them.
    arrived: the datasets of its growing stream; None if it has none, or nobody has looked yet.
    entries: what its stream's file lists; None likewise.
    """

    experiment: Experiment
    datasets: Mapping[str, Dataset]
    bases: Mapping[str, Path]
    path: Path
    wrong: Mapping[str, str] = field(default_factory=dict)
    sweep: str | None = None
    swept: Mapping[str, Any] = field(default_factory=dict)
    replicate_of: str | None = None
    replicate: str = ""
    arrived: tuple[str, ...] | None = None
    entries: tuple[str, ...] | None = None

    @property
    def base(self) -> Path:
        """The folder that its relative paths start from."""
        return self.path.parent

    def dataset(self, name: str, where: str) -> Dataset:
        """A dataset that the experiment names in a setting, `where`; `InputError` without it."""
        said = f"experiment {self.experiment.name!r}: {where} names dataset {name!r}, which "
        if name in self.wrong:
            raise InputError(f"{said}cannot be used: {self.wrong[name]}")
        if name not in self.datasets:
            known = {*self.datasets, *by_any_name()}
            raise InputError(f"{said}is not declared; " + nearest(name, known))
        return self.datasets[name]


def load_experiment(name_or_path: str, project: Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read one experiment by its name or a path to its YAML file.

    overrides: `key=value` with a dotted key and a YAML value, applied last.
    Raises `InputError` naming the file, the key, its value and the nearest valid one.
    """
    path = find_file(name_or_path, project)
    data = declared_in(path, project)
    if any(data.pop(key, None) is not None for key in OF_FILES):
        raise InputError(
            f"{path} is a sweep of several experiments, but one experiment was expected: name one, "
            f"as in {path.stem}/NAME (`fomo plan {path.stem}` lists them)"
        )
    return experiment_from(data, path, project, overrides, load_datasets(project))


def declared_in(path: Path, project: Path) -> dict[str, Any]:
    """What a file declares, with what it extends, under its name; a sweep is as it stands."""
    data = _with_parents(path, (), project)
    data.setdefault("name", _name_of(path, project))
    return data


def experiment_from(
    data: dict[str, Any],
    path: Path,
    project: Path,
    overrides: Sequence[str],
    known: Datasets,
    where: str | None = None,
    swept: Collection[str] = (),
) -> Loaded:
    """The experiment that `data` of a file declare; see `load_experiment`.

    known: the project's datasets. where: begins every error; the file by default. swept: the keys
    whose values the file's sweep gives.
    """
    for override in overrides:
        apply_override(data, override)
    where = where or str(path)
    datasets, bases, wrong = dict(known.declared), dict(known.bases), dict(known.wrong)
    own = data.get("datasets")
    if isinstance(own, dict):
        data["datasets"] = {name: completed(name, own[name], where) for name in own}
    shipped = shipped_datasets()
    declared = {*datasets, *wrong, *shipped.declared, *(own if isinstance(own, dict) else ())}
    experiment: Experiment = validated(
        TypeAdapter(Experiment), data, where, Experiment, declared,
        place=Place(path, (), _parents(path, project), overrides, swept),
    )  # fmt: skip
    for name, dataset in experiment.datasets.items():
        if name in datasets and datasets[name] != dataset:
            raise InputError(
                f"{path}: dataset {name!r} is declared differently in the project's "
                "datasets/ folder: give it another name, or delete one declaration"
            )
        datasets[name], bases[name] = dataset, path.parent
        wrong.pop(name, None)
    whole = with_shipped(Datasets(datasets, bases, wrong, known.unread), project)
    return Loaded(experiment, whole.declared, whole.bases, path, whole.wrong)


def _name_of(path: Path, project: Path) -> str:
    """The file's, after those of its folders below `experiments/`, so that no two share one."""
    resolved = path.resolve()
    for root in (project, shipped_folder()):
        folder = (root / "experiments").resolve()
        if resolved.is_relative_to(folder):
            return "_".join(resolved.relative_to(folder).with_suffix("").parts)
    return path.stem


def _with_parents(path: Path, children: tuple[Path, ...], project: Path) -> dict[str, Any]:
    if path in children:
        chain = " → ".join(p.stem for p in (*children, path))
        raise InputError(f"{path} extends itself: {chain}")
    check_has_no_twin(path)
    data = read_mapping(path)
    parent = data.pop(EXTENDS, None)
    for grid in grids_of(data.get(SWEEP)):
        if EXTENDS in grid:
            grid[EXTENDS] = _parents_of(path, grid[EXTENDS], parent, project)
    if parent is None:
        return data
    base = _with_parents(_parent(path, parent, project), (*children, path), project)
    base.pop("name", None)
    return merged(base, data)


def _parents(path: Path, project: Path) -> Iterator[Path]:
    """The files that a file extends, the nearest first."""
    while (parent := read_mapping(path).get(EXTENDS)) is not None:
        path = _parent(path, parent, project)
        yield path


def _parent(path: Path, parent: Any, project: Path) -> Path:
    """The file that another one extends: by a path from its own folder, or else by the name under
    which commands know it, or else, where the project has no such folder, beside it, or else among
    those that ship with the package. So files of a folder can be copied to another one, alone or
    together. A shipped file extends shipped ones alone, whatever a project calls its own."""
    if not isinstance(parent, str):
        raise InputError(f"{path}: {EXTENDS} is {parent!r}, and one name or path was expected")
    folder, _, name = parent.rpartition("/")
    shipped = shipped_folder() / "experiments"
    ours = shipped if path.resolve().is_relative_to(shipped) else project / "experiments"
    places = [path.parent / folder, ours / folder]
    if not any(place.is_dir() for place in places):
        places = [path.parent]
    places.append(shipped / folder)
    there: dict[str, Path] = {}
    for place in places:
        found = {p.stem: p.resolve() for p in declaration_files(place)}
        if found.get(name, path.resolve()) != path.resolve():
            return found[name]
        there |= found
    if name in there:
        raise InputError(f"{path} extends itself: {name}")
    raise InputError(f"{path} extends {parent!r}, which is not there; " + nearest(name, there))


def _parents_of(path: Path, swept: Any, parent: Any, project: Path) -> Any:
    """The files that a sweep's members extend, found from where the sweep's is."""
    if parent is not None:
        raise InputError(
            f"{path} extends {parent!r}, and so do all members of its sweep: they cannot "
            "extend other files as well"
        )
    if isinstance(swept, dict):
        return {name: str(_parent(path, one, project)) for name, one in swept.items()}
    named = swept if isinstance(swept, list) else [swept]
    return [str(_parent(path, one, project)) for one in named]
