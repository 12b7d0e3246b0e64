"""Reading experiment and dataset files: YAML, `extends`, overrides, and errors that name the key.

A project is a folder with `experiments/*.yaml`, one experiment or sweep a file, and
`datasets/*.yaml`, each a mapping from dataset names to declarations. What ships with the package is
found by the same names wherever the project itself has none of them. Which experiments a sweep is
stands in `fomo_dagster.experiment.experiment_sets`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from fomo_dagster.data.benchmark.registry import by_any_name
from fomo_dagster.data.dataset import Dataset
from fomo_dagster.errors import InputError, nearest
from fomo_dagster.experiment.benchmark import benchmark_declarations, with_benchmark_values
from fomo_dagster.experiment.extending import apply_override, merged
from fomo_dagster.experiment.names import check_safe_name
from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.experiment.sweeping import (
    EXTENDS,
    MOST_REPLICATES,
    OF_FILES,
    REPLICATES,
    SEED_LIST,
    SEEDS,
    SWEEP,
    VARY,
    grids_of,
)
from fomo_dagster.experiment.validating import Place, validated
from fomo_dagster.paths import problem_of, said_of
from fomo_dagster.shipped import shipped_folder
from fomo_dagster.yaml_files import read_mapping, read_parts, text_of

SUFFIXES = (".yaml", ".yml")
_NAME = re.compile(r"^['\"]?([A-Za-z0-9][A-Za-z0-9_]*)['\"]?\s*:(?:\s|$)", re.MULTILINE)


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


def experiment_files(project: Path) -> dict[str, Path]:
    """Experiment name → file, for every file in the project's `experiments/` folder; of two that
    differ in their suffixes alone, which are refused when they are read, the second by all of it.
    """
    return files_by_name(project / "experiments")


def files_by_name(folder: Path) -> dict[str, Path]:
    """Name → file, for every declaration in a folder; see `experiment_files`."""
    files: dict[str, Path] = {}
    for path in declaration_files(folder):
        files[path.name if path.stem in files else path.stem] = path
    return files


def is_declaration(path: Path) -> bool:
    """Whether its name ends as those of experiments and datasets do; hidden files, such as editors
    and macOS leave, are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def declaration_files(folder: Path) -> Iterator[Path]:
    """The declarations in a folder, in the order of their names."""
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise InputError(said_of(error, folder)) from error
    yield from filter(is_declaration, (folder / name for name in names))


def check_has_no_twin(path: Path) -> None:
    """Raises `InputError` where another file differs from this one in its suffix alone."""
    twins = [p.name for p in path.parent.glob("*") if p.stem == path.stem and is_declaration(p)]
    if len(twins) > 1:
        raise InputError(
            f"{path}: {' and '.join(sorted(twins))} would both be {path.stem!r}: rename or delete "
            "one"
        )


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
        data["datasets"] = {name: _completed(name, own[name], where) for name in own}
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
    for name, dataset in {**benchmark_declarations(), **shipped.declared}.items():
        if name not in datasets and known.unread:
            wrong.setdefault(name, f"{known.unread[0]}; it may declare {name}")
        if name not in wrong:
            datasets.setdefault(name, dataset)
            bases.setdefault(name, shipped.bases.get(name, project))
    return Loaded(experiment, datasets, bases, path, wrong)


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


def _dataset(name: str, declaration: Any, path: Path) -> Dataset:
    if isinstance(declaration, InputError):
        raise declaration
    try:
        check_safe_name(name)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    where = f"{path}: dataset {name!r}"
    whole = _completed(name, declaration, where)
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


def json_schema() -> dict[str, Any]:
    """The JSON schema of the experiment file, for editors."""
    schema = Experiment.model_json_schema()
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "The experiment to inherit from: its name, with the folder if it is in "
        "another one (`fomo_in_flux/default`).",
    }
    schema["properties"][SWEEP] = {
        "anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}],
        "description": "Declare one experiment for every combination of values: dotted keys, each "
        "with a list of values or a mapping from names to values; or a list of such mappings. "
        "`together` varies several keys at once, `extends` the file to inherit from.",
    }
    schema["properties"][REPLICATES] = {
        "type": "integer", "minimum": 1, "maximum": MOST_REPLICATES,
        "description": "Declare the experiment so many times, each with another seed, from its own "
        "on. They share whatever the seeds do not change.",
    }  # fmt: skip
    schema["properties"][SEED_LIST] = {
        "type": "array", "items": {"type": "integer"}, "minItems": 1,
        "description": "The seeds of the replicates, in place of their number.",
    }  # fmt: skip
    schema["properties"][VARY] = {
        "type": "array", "items": {"enum": list(SEEDS)}, "minItems": 1, "default": ["training"],
        "description": "Which seeds the replicates set: "
        + "; ".join(f"{what}: `{key}`" for what, key in SEEDS.items()) + ".",
    }  # fmt: skip
    schema["required"] = []  # a file that extends another may leave anything out
    return schema


def _name_of(path: Path, project: Path) -> str:
    """The file's, after those of its folders below `experiments/`, so that no two share one."""
    resolved = path.resolve()
    for root in (project, shipped_folder()):
        folder = (root / "experiments").resolve()
        if resolved.is_relative_to(folder):
            return "_".join(resolved.relative_to(folder).with_suffix("").parts)
    return path.stem


def find_file(name_or_path: str, project: Path) -> Path:
    """The file that a name or a path stands for, the project's before one that ships with the
    package; `InputError` if there is none."""
    known: set[str] = set()
    for folder in (project / "experiments", shipped_folder() / "experiments"):
        files = experiment_files(folder.parent)
        if name_or_path in files:
            return files[name_or_path]
        for suffix in SUFFIXES:  # of a folder below, which Dagster does not load
            below = folder / f"{name_or_path}{suffix}"
            if "/" in name_or_path and below.resolve().is_relative_to(folder.resolve()):
                if below.is_file():
                    return below
                files |= {f"{p.parent.name}/{p.stem}": p for p in below.parent.glob(f"*{suffix}")}
        known |= files.keys()
    path = Path(name_or_path).expanduser()
    if path.suffix.lower() in SUFFIXES:
        if path.is_file():
            return path.resolve()
        raise InputError(problem_of(path, "file") or f"{path} is no file of an experiment")
    raise InputError(
        f"there is no experiment {name_or_path!r} in {project / 'experiments'}; "
        + nearest(name_or_path, known)
    )


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


def _completed(name: str, declaration: Any, where: str) -> Any:
    try:
        return with_benchmark_values(name, declaration)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
