"""From plain data to declarations, with errors that name the line, the key, its value and the way
out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.experiment.sweeping import EXTENDS, SWEEP
from fomo_dagster.yaml_files import line_of


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
