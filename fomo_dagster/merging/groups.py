"""Values for groups of parameters: the towers of a CLIP model, and names that match a pattern.

`image` is every parameter below `visual.`, `logit_scale` is the temperature (and the bias of the
logits, if there is one), `text` is the rest. Anything else is a shell pattern, where `*` matches
any characters, dots included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from fomo_dagster.errors import InputError, nearest

TOWERS = ("image", "text", "logit_scale")
T = TypeVar("T")


def tower_of(name: str) -> str:
    """image, text or logit_scale."""
    if name.startswith("visual."):
        return "image"
    return "logit_scale" if name in ("logit_scale", "logit_bias") else "text"


def by_group(
    groups: Mapping[str, T] | None, default: T, names: Iterable[str]
) -> Callable[[str], T]:
    """Parameter's name → its value: that of the pattern that matches it, else that of its tower,
    else the default.

    Raises `InputError` for a group without parameters, and for a parameter that matches two
    patterns with different values: patterns have no order.
    """
    groups = groups or {}
    listed = list(names)
    patterns = {group: value for group, value in groups.items() if group not in TOWERS}
    values: dict[str, T] = {}
    matched: dict[str, str] = {}
    found: set[str] = set()
    for name in listed:
        tower = tower_of(name)
        found.add(tower)
        values[name] = groups.get(tower, default)
        for pattern, value in patterns.items():
            if not fnmatchcase(name, pattern):
                continue
            found.add(pattern)
            if name in matched and patterns[matched[name]] != value:
                raise InputError(
                    f"{name} matches {matched[name]!r} and {pattern!r}, which have different "
                    "values: make one pattern narrower"
                )
            matched[name], values[name] = pattern, value
    for group in groups:
        if group not in found:
            raise InputError(
                f"no parameter of these checkpoints belongs to {group!r}: give image, text, "
                f"logit_scale, a name or a pattern ({nearest(group, [*TOWERS, *listed])})"
            )
    return values.__getitem__
