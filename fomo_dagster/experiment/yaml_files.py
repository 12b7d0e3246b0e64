"""YAML as the project's files are written in it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from fomo_dagster.errors import InputError

VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")


def read_mapping(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; raises `InputError` naming the file."""
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


def read_value(text: str) -> Any:
    """A value as it may stand in a file; raises `InputError` where it is no YAML."""
    try:
        return yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        raise InputError(f"not valid YAML: {error}") from error


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
