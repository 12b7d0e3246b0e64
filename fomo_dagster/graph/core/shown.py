"""What an asset shows of itself and which checks it has, for any front end to draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG (`.jpg`), whose title says what it shows, such as `loss_over_steps`; it is not
    shown where it is not there."""

    path: Path | None


@dataclass(frozen=True)
class Bullets:
    """Texts, one a line."""

    texts: tuple[str, ...]


Shown: TypeAlias = "str | int | float | Path | Picture | Bullets | pl.DataFrame"
"""A path is that of a file for people."""


@dataclass(frozen=True)
class Check:
    """What must hold of what was made. blocking: if it fails, nothing downstream is made."""

    name: str
    description: str
    blocking: bool = False


@dataclass(frozen=True)
class Checked:
    """The result of a check, by its name."""

    check: str
    passed: bool
    severity: Literal["warning", "error"] = "warning"
    details: Mapping[str, Any] = field(default_factory=dict)
