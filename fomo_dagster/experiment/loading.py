"""Reading experiment and dataset files: YAML, `extends`, overrides, and errors that name the key.

A project is a folder with `experiments/*.yaml`, one experiment or sweep a file, and
`datasets/*.yaml`, each a mapping from dataset names to declarations. Which experiments a sweep is
stands in `fomo_dagster.experiment.families`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from fomo_dagster.data.declarations import Dataset
from fomo_dagster.errors import InputError, nearest
from fomo_dagster.experiment.benchmark import benchmark_declarations, with_benchmark_values
from fomo_dagster.experiment.extending import merged, nested
from fomo_dagster.experiment.names import check_safe_name
from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.experiment.sweeping import EXTENDS, SWEEP, grids_of
from fomo_dagster.yaml_files import line_of, read_mapping, read_value

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Loaded:
    """An experiment with the datasets it can name, those of the benchmark among them, and the
    folder its relative paths start from.

    sweep: the name of the sweep that it is one of; None where it stands in a file of its own.
    swept: what tells it from the others, as tables show it.
    arrived: the datasets of its growing stream; None where it has none, or nobody has looked yet.
    entries: what its stream's file lists; None likewise.
    """

    experiment: Experiment
    datasets: Mapping[str, Dataset]
    bases: Mapping[str, Path]
    base: Path
    sweep: str | None = None
    swept: Mapping[str, Any] = field(default_factory=dict)
    arrived: tuple[str, ...] | None = None
    entries: tuple[str, ...] | None = None


Datasets = tuple[dict[str, Dataset], dict[str, Path]]
"""Declarations, and the folder that each one's paths start from, by dataset."""


def experiment_files(project: Path) -> dict[str, Path]:
    """Experiment name → file, for every file in the project's `experiments/` folder; of two that
    differ in their suffixes alone, which are refused when they are read, the second by all of it.
    """
    files: dict[str, Path] = {}
    for path in filter(is_declaration, sorted((project / "experiments").glob("*"))):
        files[path.name if path.stem in files else path.stem] = path
    return files


def is_declaration(path: Path) -> bool:
    """Whether it is a file whose name ends as those of experiments and datasets do."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def load_experiment(name_or_path: str, project: Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read one experiment by its name or a path to its YAML file.

    overrides: `key=value` with a dotted key and a YAML value, applied last.
    Raises `InputError` naming the file, the key, its value and the nearest valid one.
    """
    path = find_file(name_or_path, project)
    data = declared_in(path, project)
    if data.pop(SWEEP, None) is not None:
        raise InputError(f"{path} is a sweep of several experiments, and one was expected")
    return experiment_from(data, path, project, overrides, load_datasets(project))


def declared_in(path: Path, project: Path) -> dict[str, Any]:
    """What a file declares, with what it extends, under its name; a sweep is as it stands."""
    data = _with_parents(path, ())
    data.setdefault("name", _name_of(path, project))
    return data


def experiment_from(
    data: dict[str, Any],
    path: Path,
    project: Path,
    overrides: Sequence[str],
    known: Datasets,
    where: str | None = None,
) -> Loaded:
    """The experiment that `data` of a file declare; see `load_experiment`.

    known: the project's datasets. where: begins every error; the file by default.
    """
    for override in overrides:
        apply_override(data, override)
    where = where or str(path)
    datasets, bases = dict(known[0]), dict(known[1])
    own = data.get("datasets")
    if isinstance(own, dict):
        data["datasets"] = {name: _completed(name, own[name], where) for name in own}
    declared = {*datasets, *(own if isinstance(own, dict) else ())}
    experiment: Experiment = validated(
        TypeAdapter(Experiment), data, where, Experiment, declared, place=(path, ())
    )
    for name, dataset in experiment.datasets.items():
        if name in datasets and datasets[name] != dataset:
            raise InputError(
                f"{path}: dataset {name!r} is declared otherwise in the project's datasets/ "
                "folder: give it another name, or delete one declaration"
            )
        datasets[name], bases[name] = dataset, path.parent
    for name, dataset in benchmark_declarations().items():
        datasets.setdefault(name, dataset)
        bases.setdefault(name, project)
    return Loaded(experiment, datasets, bases, path.parent)


def load_datasets(project: Path) -> Datasets:
    """The project's dataset declarations, and the folder that each one's paths start from."""
    datasets: dict[str, Dataset] = {}
    bases: dict[str, Path] = {}
    origins: dict[str, Path] = {}
    for path in sorted((project / "datasets").glob("*")):
        if not is_declaration(path):
            continue
        for name, declaration in read_mapping(path).items():
            where = f"{path}: dataset {name!r}"
            try:
                check_safe_name(str(name))
            except ValueError as error:
                raise InputError(f"{path}: {error}") from error
            if name in origins:
                raise InputError(f"{where} is declared in {origins[name]} too: rename one")
            declaration = _completed(name, declaration, where)
            datasets[name] = validated(
                TypeAdapter(Dataset), declaration, where, Dataset, place=(path, (name,))
            )
            bases[name], origins[name] = path.parent, path
    return datasets, bases


def json_schema() -> dict[str, Any]:
    """The JSON schema of the experiment file, for editors."""
    schema = Experiment.model_json_schema()
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "Another experiment whose values this one changes: its name, after a folder "
        "where it is in another one (`fomo_in_flux/default`).",
    }
    schema["properties"][SWEEP] = {
        "anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}],
        "description": "Dotted keys with a list of values each (or names with a value each): an "
        "experiment for every combination; or a list of such mappings. `together` varies several "
        "keys at once, `extends` the file whose values are taken over.",
    }
    schema["required"] = []  # a file that extends another may leave anything out
    return schema


def _name_of(path: Path, project: Path) -> str:
    """The file's, after those of its folders below `experiments/`, so that no two share one."""
    folder = (project / "experiments").resolve()
    resolved = path.resolve()
    if not resolved.is_relative_to(folder):
        return path.stem
    return "_".join(resolved.relative_to(folder).with_suffix("").parts)


def find_file(name_or_path: str, project: Path) -> Path:
    """The file that a name or a path stands for; `InputError` if there is none."""
    files = experiment_files(project)
    if name_or_path in files:
        return files[name_or_path]
    folder = project / "experiments"
    for suffix in SUFFIXES:  # of a folder below, which Dagster does not load
        below = folder / f"{name_or_path}{suffix}"
        if "/" in name_or_path and below.resolve().is_relative_to(folder.resolve()):
            if below.is_file():
                return below
            files |= {f"{p.parent.name}/{p.stem}": p for p in below.parent.glob(f"*{suffix}")}
    path = Path(name_or_path).expanduser()
    if path.suffix.lower() in SUFFIXES:
        if path.is_file():
            return path.resolve()
        raise InputError(f"there is no experiment file {path}")
    raise InputError(
        f"there is no experiment {name_or_path!r} in {project / 'experiments'}; "
        + nearest(name_or_path, files)
    )


def _with_parents(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    if path in children:
        chain = " → ".join(p.stem for p in (*children, path))
        raise InputError(f"{path} extends itself: {chain}")
    twins = [p.name for p in path.parent.glob("*") if p.stem == path.stem and is_declaration(p)]
    if len(twins) > 1:
        raise InputError(
            f"{path}: {' and '.join(sorted(twins))} would both be {path.stem!r}: rename or delete "
            "one"
        )
    data = read_mapping(path)
    parent = data.pop(EXTENDS, None)
    for grid in grids_of(data.get(SWEEP)):
        if EXTENDS in grid:
            grid[EXTENDS] = _parents_of(path, grid[EXTENDS], parent)
    if parent is None:
        return data
    base = _with_parents(_parent(path, parent), (*children, path))
    base.pop("name", None)
    return merged(base, data)


def _parent(path: Path, parent: Any) -> Path:
    folder, _, name = str(parent).rpartition("/")
    there = {p.stem: p for p in (path.parent / folder).glob("*") if is_declaration(p)}
    if name not in there:
        raise InputError(f"{path} extends {parent!r}, which is not there; " + nearest(name, there))
    return there[name].resolve()


def _parents_of(path: Path, swept: Any, parent: Any) -> Any:
    """The files that a sweep's members extend, found from where the sweep's is."""
    if parent is not None:
        raise InputError(
            f"{path} extends {parent!r}, and so do all members of its sweep: they cannot extend "
            "other files beside it"
        )
    if isinstance(swept, dict):
        return {name: str(_parent(path, one)) for name, one in swept.items()}
    return [str(_parent(path, one)) for one in (swept if isinstance(swept, list) else [swept])]


def apply_override(data: dict[str, Any], override: str) -> None:
    """Put what `key=value` says into the data: a dotted key and a YAML value.

    Raises `InputError` for what is not of this form.
    """
    key, separator, text = override.partition("=")
    if not separator or not all(key.strip().split(".")):
        raise InputError(f"--set {override!r} is not of the form key=value (key may have dots)")
    try:
        value = read_value(text)
    except InputError as error:
        raise InputError(f"--set {override!r}: {error}") from error
    result = merged(data, nested(key.strip(), value))
    data.clear()
    data.update(result)


def _completed(name: str, declaration: Any, where: str) -> Any:
    try:
        return with_benchmark_values(name, declaration)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def validated(
    adapter: TypeAdapter[Any],
    data: Any,
    where: str,
    model: type[BaseModel],
    declared: Collection[str] = (),
    whole: str = "the file",
    place: tuple[Path, tuple[str, ...]] | None = None,
) -> Any:
    """The data as the adapter's type, with errors that name the key, its value and the nearest.

    where: begins every error. model: the class that the data describe. declared: see `DatasetName`.
    whole: what errors call the data where they are about no single key. place: the file, which
    `where` begins with, and the keys under which the data stand there; errors then name the line.
    """
    try:
        return adapter.validate_python(data, context={"declared": declared})
    except ValidationError as error:
        said = []
        for problem in error.errors(include_url=False):
            location = _location(problem, model)
            said.append(f"{_with_line(where, place, location)}: {_explain(problem, model, whole)}")
        raise InputError("\n".join(said)) from error


def _with_line(where: str, place: tuple[Path, tuple[str, ...]] | None, keys: Sequence[Any]) -> str:
    """`where` with the line after the file that it begins with, where the keys stand there."""
    if place is None:
        return where
    path, above = place
    line = line_of(path, [*above, *keys])
    return where if line is None else f"{path}, line {line}{where.removeprefix(str(path))}"


def _location(problem: Any, model: type[BaseModel]) -> list[Any]:
    """The keys and places down to what a problem is about."""
    if problem["type"] == "extra_forbidden":
        return [*_keys(problem["loc"][:-1], model), problem["loc"][-1]]
    return _keys(problem["loc"], model)


def _explain(problem: Any, model: type[BaseModel], whole: str) -> str:
    is_unknown = problem["type"] == "extra_forbidden"
    location = _location(problem, model)
    name = ".".join(str(p) for p in location) or whole
    if is_unknown:
        valid = _fields_at(model, problem["loc"][:-1])
        return f"unknown key {name!r} (value {problem['input']!r}); " + nearest(
            str(location[-1]), valid
        )
    if problem["type"] == "missing":
        return f"{name} is missing"
    if problem["type"] == "literal_error":
        allowed = [
            v.strip(" '") for v in problem["ctx"]["expected"].replace(" or ", ", ").split(",")
        ]
        return f"{name} is {problem['input']!r}; " + nearest(str(problem["input"]), allowed)
    if problem["type"] == "union_tag_invalid":
        tag, tags = problem["ctx"]["tag"], problem["ctx"]["expected_tags"]
        given = problem["input"] if isinstance(problem["input"], dict) else {}
        said_by = [f".{key}" for key, value in given.items() if value == tag]
        named = name + "".join(said_by[:1])
        return f"{named} is {tag!r}; " + nearest(tag, tags.replace("'", "").split(", "))
    if problem["type"] == "union_tag_not_found" and not isinstance(problem["input"], dict):
        return f"{name} is {problem['input']!r}; a mapping was expected"
    if problem["type"] == "string_type" and isinstance(problem["input"], int | float):
        return f"{name} is {problem['input']!r}; text was expected: quote it"
    message = problem["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(problem["input"], dict) else f" is {problem['input']!r}"
    return f"{name}{shown}: {message}"


def _keys(location: Sequence[Any], model: type[BaseModel]) -> list[Any]:
    """The keys and places of pydantic's `location`, without the names of a union's branches."""
    keys: list[Any] = []
    models: list[type[BaseModel]] = [model]
    names_follow = False  # in a mapping, whose keys are no fields
    for part in location:
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        if isinstance(part, str) and not fields and not (names_follow and "[" not in part):
            continue
        keys.append(part)
        names_follow = any(_is_mapping(field.annotation) for field in fields)
        if fields:
            models = [m for field in fields for m in _models_in(field.annotation)]
    return keys


def _is_mapping(annotation: Any) -> bool:
    """Whether a value of this type is a mapping, alone or beside other types that are no text."""
    if get_origin(annotation) is dict:
        return True
    types = get_args(annotation)
    return str not in types and any(get_origin(one) is dict for one in types)


def _fields_at(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    """The valid keys of the mapping that an unknown key stands in; `location` is pydantic's, whose
    names of a union's branches tell which of its models the mapping was taken for."""
    models: list[type[BaseModel]] = [model]
    for part in location:
        found: list[type[BaseModel]] = []
        for candidate in models:
            field = candidate.model_fields.get(str(part))
            if field is not None:
                found.extend(_models_in(field.annotation))
        branch = [m for m in models if any(part in get_args(f.annotation) for f in _tags(m))]
        models = found or branch or models
    names = [name for m in models for name in m.model_fields]
    return [*names, EXTENDS, SWEEP] if not location and model is Experiment else names


def _tags(model: type[BaseModel]) -> Iterator[FieldInfo]:
    """The fields that say by a constant which of a union's models this is."""
    return (f for f in model.model_fields.values() if get_origin(f.annotation) is Literal)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
