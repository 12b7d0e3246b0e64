"""The generators by name. Each family is imported when one of its generators is made, so that
scikit-learn, scikit-image and matplotlib load only where they are used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from fomo_dagster.data.suite.generator import Generator
from fomo_dagster.errors import InputError, nearest

GENERATORS = {
    "aerial": "Aerial",
    "clocks": "Clocks",
    "digits": "Digits",
    "dsprites": "DSprites",
    "flags": "Flags",
    "glyphs": "Glyphs",
    "medley": "Medley",
    "photographs": "Photographs",
    "relations": "Relations",
    "rooms": "Rooms",
    "shapes3d": "Shapes3D",
    "sprites": "Sprites",
    "textures": "Textures",
}  # module in this folder (and the name in a declaration) -> its class


def create_generator(name: str, parameters: Mapping[str, Any], seed: int) -> Generator:
    """The generator `name` with its parameters checked.

    Raises `InputError` for an unknown generator, parameter or concept (with the nearest valid
    name), and for a value out of range.
    """
    if name not in GENERATORS:
        raise InputError(f"there is no generator {name!r}; {nearest(name, GENERATORS)}")
    module = importlib.import_module(f"fomo_dagster.data.suite.{name}")
    family = getattr(module, GENERATORS[name])
    try:
        checked = family.Parameters.model_validate(dict(parameters))
    except ValidationError as error:
        raise InputError(_explain(name, family.Parameters, error)) from None
    generator: Generator = family(checked, seed)
    return generator


def _explain(name: str, accepted: type[BaseModel], error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "parameters"
        if problem["type"] == "extra_forbidden":
            lines.append(
                f"generator {name!r} has no parameter {key!r}; "
                + nearest(key, accepted.model_fields)
            )
        else:
            lines.append(
                f"generator {name!r}: {key} = {problem['input']!r} will not do: {problem['msg']}"
            )
    return "\n".join(lines)
