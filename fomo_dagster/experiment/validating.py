"""From plain data to declarations, with errors that name the line, the key, its value and the way
out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.experiment.sweeping import EXTENDS, OF_FILES, SWEEP
from fomo_dagster.yaml_files import line_of

# What was expected, where pydantic would say it in the terms of Python.
_EXPECTED = {
    "bool_parsing": "true or false was expected",
    "bool_type": "true or false was expected",
    "dict_type": "keys and values were expected",
    "finite_number": "a finite number was expected",
    "float_parsing": "a number was expected",
    "float_type": "a number was expected",
    "greater_than": "it must be above {gt:g}",
    "greater_than_equal": "it must be at least {ge:g}",
    "int_from_float": "a whole number was expected",
    "int_parsing": "a whole number was expected",
    "int_parsing_size": "a smaller whole number was expected",
    "int_type": "a whole number was expected",
    "less_than": "it must be below {lt:g}",
    "less_than_equal": "it must be at most {le:g}",
    "list_type": "a list was expected, as in [a, b]",
    "model_attributes_type": "keys and values were expected",
    "model_type": "keys and values were expected",
    "path_type": "a path was expected",
    "string_too_long": "its length must be at most {max_length}",
    "string_too_short": "its length must be at least {min_length}",
    "string_type": "text was expected",
    "too_long": "it must have at most {max_length} entries",
    "too_short": "it must not be empty",
    "tuple_type": "a list was expected, as in [a, b]",
}


@dataclass(frozen=True)
class Place:
    """Where the validated data were written, so that errors can say so.

    path: their file, which `where` of an error begins with. above: the keys above them. parents:
    the files that it extends, the nearest first. overrides: each `key=value` of `--set`. swept: the
    dotted keys whose values the file's sweep gives.
    """

    path: Path
    above: tuple[str, ...] = ()
    parents: Iterable[Path] = ()
    overrides: Sequence[str] = ()
    swept: Collection[str] = ()

    def begin(self, where: str, keys: Sequence[Any]) -> str:
        """`where`, with the place that gives the value at these keys: a `--set`, or the line of a
        file."""
        for override in reversed(self.overrides):
            if _overlap(keys, override.partition("=")[0].strip()):
                return f"{where}, --set {override!r}"
        axis = next((key for key in self.swept if _overlap(keys, key)), None)
        sought = [*self.above, *(keys if axis is None else (SWEEP, axis))]
        if axis is None and line_of(self.path, sought, whole=True) is None:
            for parent in self.parents:
                if (line := line_of(parent, sought, whole=True)) is not None:
                    return f"{where} (inherited from {parent}, line {line})"
        line = line_of(self.path, sought)
        rest = where.removeprefix(str(self.path))
        return where if line is None else f"{self.path}, line {line}{rest}"


def _overlap(keys: Sequence[Any], dotted: str) -> bool:
    """Whether one of two places is the other one, or holds it."""
    return bool(keys) and all(str(a) == b for a, b in zip(keys, dotted.split("."), strict=False))


_DEEPEST = 3  # levels that an unknown key is looked for in


def validated(
    adapter: TypeAdapter[Any],
    data: Any,
    where: str,
    model: type[BaseModel],
    declared: Collection[str] = (),
    whole: str = "",
    place: Place | None = None,
) -> Any:
    """The data as the adapter's type, with errors that name the key, its value and the nearest.

    where: begins every error. model: the class that the data describe. declared: see `DatasetName`.
    whole: what errors call the data where they are about no single key.
    """
    try:
        return adapter.validate_python(data, context={"declared": declared})
    except ValidationError as error:
        said = []
        for problem in error.errors(include_url=False):
            explained = _explain(problem, model, whole)
            keys = _location(problem, model) or _named_in(explained)
            begun = where if place is None else place.begin(where, keys)
            said.append(f"{begun}: {explained}")
        raise InputError("\n".join(said)) from error


def _named_in(sentence: str) -> list[str]:
    """The setting that a sentence about a whole file begins with, such as `budget.samples is 1`."""
    return sentence.partition(" is ")[0].split(".") if " is " in sentence else []


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
        key = str(location[-1])
        there = _places_of(key, model)
        hint = nearest(key, _fields_at(model, problem["loc"][:-1]))
        if there and name not in there:  # as another form of a mapping may have it
            hint = f"did you mean {' or '.join(map(repr, there[:3]))}?"
        return f"unknown key {name!r} (value {problem['input']!r}); {hint}"
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
    if problem["type"] == "union_tag_not_found":
        key = problem["ctx"]["discriminator"].strip("'")
        key = key if key.isidentifier() else "name"  # what a function tells models apart by
        fields = [one.model_fields.get(key) for one in _models_at(model, problem["loc"])]
        tags = [tag for field in fields if field is not None for tag in get_args(field.annotation)]
        return f"{name}.{key} is missing; " + nearest("", tags)
    if problem["type"] == "string_type" and isinstance(problem["input"], int | float):
        return f"{name} is {problem['input']!r}; text was expected: quote it"
    message = _EXPECTED.get(problem["type"], "").format_map(problem.get("ctx", {}))
    message = message or problem["msg"].removeprefix("Value error, ")
    if isinstance(problem["input"], dict):  # too long to be shown
        return f"{name}: {message}" if name else message
    return f"{name} is {problem['input']!r}: {message}"


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
    """The valid keys of the mapping that an unknown key stands in; `location` is pydantic's."""
    names = [name for m in _models_at(model, location) for name in m.model_fields]
    return [*names, EXTENDS, *OF_FILES] if not location and model is Experiment else names


def _models_at(model: type[BaseModel], location: Sequence[Any]) -> list[type[BaseModel]]:
    """What the mapping at pydantic's `location` may be, whose names of a union's branches tell
    which of its models it was taken for."""
    models: list[type[BaseModel]] = [model]
    for part in location:
        found: list[type[BaseModel]] = []
        for candidate in models:
            field = candidate.model_fields.get(str(part))
            if field is not None:
                found.extend(_models_in(field.annotation))
        branch = [m for m in models if any(part in get_args(f.annotation) for f in _tags(m))]
        models = found or branch or models
    return models


def _places_of(key: str, model: type[BaseModel]) -> list[str]:
    """The dotted places of a key, as far up in the whole file as it stands in any mapping."""
    level: list[tuple[str, type[BaseModel]]] = [("", model)]
    for _ in range(_DEEPEST):
        found = [place + key for place, one in level if key in one.model_fields]
        if found:
            return list(dict.fromkeys(found))
        level = [
            (f"{place}{name}.", inner)
            for place, one in level
            for name, field in one.model_fields.items()
            if not _is_mapping(field.annotation)
            for inner in _models_in(field.annotation)
        ]
    return []


def _tags(model: type[BaseModel]) -> Iterator[FieldInfo]:
    """The fields that say by a constant which of a union's models this is."""
    return (f for f in model.model_fields.values() if get_origin(f.annotation) is Literal)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
