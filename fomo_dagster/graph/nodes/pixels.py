"""The parameter of recipes that says by which code images become pixels; see `data/pixel_rules`."""

from __future__ import annotations

from dataclasses import replace

from fomo_dagster.data.pixel_rules import NEWEST, PARAMETER, Pixels
from fomo_dagster.store.recipes import Recipe


def of_pixels(recipe: Recipe) -> Recipe:
    """The recipe of what is computed from images, by the newest way; its earlier one is that of
    what was computed before there was a choice."""
    return replace(recipe, parameters={**recipe.parameters, PARAMETER: int(NEWEST)}, earlier=recipe)


def pixels_of(recipe: Recipe) -> Pixels:
    """The way of a recipe."""
    return Pixels.of(recipe.parameters)
