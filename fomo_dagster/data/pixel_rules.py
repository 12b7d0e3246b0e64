"""By which code encoded images become a model's pixels: part of what is computed from them.

The ways give the same pixels but for a level here and there, so what was computed by one is neither
wrong nor out of date by another. A recipe names its own; see `graph/core/node.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

PARAMETER = "pixels"  # of a recipe


class Pixels(IntEnum):
    """PILLOW decodes and resizes: what every recipe without the parameter means. TORCH resizes what
    libjpeg-turbo decoded, where it is plain JPEG, or else Pillow."""

    PILLOW = 1
    TORCH = 2

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Pixels:
        """That of a recipe's parameters. Raises `ValueError` for one that this version lacks."""
        return cls(parameters.get(PARAMETER, cls.PILLOW))


NEWEST = Pixels.TORCH
"""The way of what is computed from now on."""
