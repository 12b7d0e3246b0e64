"""What a dataset declares about how its images are shown; `images.py` decodes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WHITE = "#ffffff"
RULES = 2  # of decoding; raised when images that `Seen` tells of become other pictures


@dataclass(frozen=True)
class Decoding:
    """background: the colour that transparency shows, as `#rrggbb`. upright: turn images by their
    orientation tags."""

    background: str = WHITE
    upright: bool = False

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Decoding:
        """The inverse of `as_data`; `data` may hold more."""
        return cls(data.get("background", WHITE), data.get("upright", False))

    def as_data(self) -> dict[str, Any]:
        """For recipes: the version of the rules, and what is declared and not at its default."""
        told: dict[str, Any] = {"decoder": RULES}
        if self.background != WHITE:
            told["background"] = self.background
        if self.upright:
            told["upright"] = True
        return told


DEFAULT = Decoding()
