"""The presets that ship with the package, which every project can run and extend by name."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_IN_WHEEL = _PACKAGE / "presets"


def shipped_folder() -> Path:
    """The folder with the shipped `experiments/`, `datasets/` and `comparisons/`: part of the
    package in a wheel, and the repository itself in a checkout."""
    return _IN_WHEEL if _IN_WHEEL.is_dir() else _PACKAGE.parent


def checkout() -> Path | None:
    """The repository that the package is used from; None if it was installed from a wheel."""
    return None if _IN_WHEEL.is_dir() else _PACKAGE.parent
