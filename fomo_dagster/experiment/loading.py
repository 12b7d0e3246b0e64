"""Reading experiment and dataset files: YAML, `extends`, overrides, and errors that name the key.

A project is a folder with `experiments/*.yaml`, one experiment a file, and `datasets/*.yaml`, each
a mapping from dataset names to declarations.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from fomo_dagster.data.declarations import Dataset
from fomo_dagster.errors import InputError, nearest
from fomo_dagster.experiment.benchmark import benchmark_declarations, with_benchmark_values
from fomo_dagster.experiment.extending import merged
from fomo_dagster.experiment.names import check_safe_name
from fomo_dagster.experiment.schema import Experiment

SUFFIXES = (".yaml", ".yml")
VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True)
class Loaded:
    """An experiment with the datasets it can name, those of the benchmark among them, and the
    folder its relative paths start from."""

    experiment: Experiment
    datasets: Mapping[str, Dataset]
    bases: Mapping[str, Path]
    base: Path


def experiment_files(project: Path) -> dict[str, Path]:
    """Experiment name → file, for every file in the project's `experiments/` folder."""
    folder = project / "experiments"
    return {p.stem: p for p in sorted(folder.glob("*")) if p.suffix in SUFFIXES}


def load_experiment(name_or_path: str, project: Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read one experiment by its name or a path to its YAML file.

    overrides: `key=value` with a dotted key and a YAML value, applied last.
    Raises `InputError` naming the file, the key, its value and the nearest valid one.
    """
    path = _find(name_or_path, project)
    data = _with_parents(path, ())
    data.setdefault("name", _name_of(path, project))
    for override in overrides:
        apply_override(data, override)
    datasets, bases = load_datasets(project)
    own = data.get("datasets")
    if isinstance(own, dict):
        data["datasets"] = {name: _completed(name, own[name], str(path)) for name in own}
    declared = {*datasets, *(own if isinstance(own, dict) else ())}
    experiment: Experiment = validated(
        TypeAdapter(Experiment), data, str(path), Experiment, declared
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


def load_all(project: Path) -> list[Loaded]:
    """Every experiment of the project."""
    return [load_experiment(str(path), project) for path in experiment_files(project).values()]


def load_datasets(project: Path) -> tuple[dict[str, Dataset], dict[str, Path]]:
    """The project's dataset declarations, and the folder that each one's paths start from."""
    datasets: dict[str, Dataset] = {}
    bases: dict[str, Path] = {}
    origins: dict[str, Path] = {}
    for path in sorted((project / "datasets").glob("*")):
        if path.suffix not in SUFFIXES:
            continue
        for name, declaration in _read_mapping(path).items():
            where = f"{path}: dataset {name!r}"
            try:
                check_safe_name(str(name))
            except ValueError as error:
                raise InputError(f"{path}: {error}") from error
            if name in origins:
                raise InputError(f"{where} is declared in {origins[name]} too: rename one")
            declaration = _completed(name, declaration, where)
            datasets[name] = validated(TypeAdapter(Dataset), declaration, where, Dataset)
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
    schema["required"] = []  # a file that extends another may leave anything out
    return schema


def _name_of(path: Path, project: Path) -> str:
    """The file's, after those of its folders below `experiments/`, so that no two share one."""
    folder = (project / "experiments").resolve()
    resolved = path.resolve()
    if not resolved.is_relative_to(folder):
        return path.stem
    return "_".join(resolved.relative_to(folder).with_suffix("").parts)


def _find(name_or_path: str, project: Path) -> Path:
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
    if path.suffix in SUFFIXES:
        if path.is_file():
            return path.resolve()
        raise InputError(f"there is no experiment file {path}")
    raise InputError(
        f"there is no experiment {name_or_path!r} in {project / 'experiments'}; "
        + nearest(name_or_path, files)
    )


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InputError(f"{path} must hold keys and values, not a {type(data).__name__}")
    return data


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses a key given twice, reads 1e-5 as a number, and puts the
    environment variable's value in the place of `${NAME}`."""

    def construct_scalar(self, node: Any) -> Any:
        return VARIABLE.sub(_variable, super().construct_scalar(node))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is not text: quote it", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _variable(match: re.Match[str]) -> str:
    name = match[1]
    value = os.environ.get(name)
    if not value:  # an empty one is as good as none, and would name the root of the file system
        raise InputError(
            f"the environment variable {name} is not set, which {match[0]} stands for: "
            f"export {name}=…"
        )
    return value


# YAML 1.1, which PyYAML implements, reads 1e-5 as text because it has no dot.
_UniqueKeys.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _with_parents(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    if path in children:
        chain = " → ".join(p.stem for p in (*children, path))
        raise InputError(f"{path} extends itself: {chain}")
    data = _read_mapping(path)
    parent = data.pop("extends", None)
    if parent is None:
        return data
    folder, _, name = str(parent).rpartition("/")
    there = {p.stem: p for p in (path.parent / folder).glob("*") if p.suffix in SUFFIXES}
    if name not in there:
        raise InputError(f"{path} extends {parent!r}, which is not there; " + nearest(name, there))
    base = _with_parents(there[name].resolve(), (*children, path))
    base.pop("name", None)
    return merged(base, data)


def apply_override(data: dict[str, Any], override: str) -> None:
    """Put what `key=value` says into the data: a dotted key and a YAML value.

    Raises `InputError` for what is not of this form.
    """
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise InputError(f"--set {override!r} is not of the form key=value (key may have dots)")
    try:
        value = yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        raise InputError(f"--set {override!r}: the value is not valid YAML: {error}") from error
    nested: Any = value
    for part in reversed(parts):
        nested = {part: nested}
    result = merged(data, nested)
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
) -> Any:
    """The data as the adapter's type, with errors that name the key, its value and the nearest.

    where: begins every error. model: the class that the data describe. declared: see `DatasetName`.
    whole: what errors call the data where they are about no single key.
    """
    try:
        return adapter.validate_python(data, context={"declared": declared})
    except ValidationError as error:
        lines = [_explain(problem, model, whole) for problem in error.errors(include_url=False)]
        raise InputError("\n".join(f"{where}: {line}" for line in lines)) from error


def _explain(problem: Any, model: type[BaseModel], whole: str) -> str:
    is_unknown = problem["type"] == "extra_forbidden"
    location = _keys(problem["loc"][:-1] if is_unknown else problem["loc"], model)
    if is_unknown:
        location.append(problem["loc"][-1])
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
    return [*names, "extends"] if not location and model is Experiment else names


def _tags(model: type[BaseModel]) -> Iterator[FieldInfo]:
    """The fields that say by a constant which of a union's models this is."""
    return (f for f in model.model_fields.values() if get_origin(f.annotation) is Literal)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
