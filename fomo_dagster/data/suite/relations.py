"""Two flat shapes and a sentence on how they stand to each other: a retrieval set.

The sentence names shape, colour and size of both, so that it is true of few other pictures.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field

from fomo_dagster.data.suite.canvas import BRIGHT, COLOURS, Canvas, Colour, mix, turned, vary
from fomo_dagster.data.suite.drawn import (
    Drawing,
    DrawnGenerator,
    DrawnParameters,
    article,
    choose,
    some,
)
from fomo_dagster.data.suite.outlines import OUTLINES
from fomo_dagster.errors import InputError

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "diamond")
SIZES = {"small": 0.13, "large": 0.22}
GROUNDS: dict[str, Colour] = {
    "black": COLOURS["black"],
    "white": COLOURS["white"],
    "grey": COLOURS["grey"],
    "dark blue": mix(COLOURS["black"], COLOURS["blue"], 0.4),
    "beige": mix(COLOURS["white"], COLOURS["orange"], 0.35),
}
RELATIONS = {
    "left of": ("right of", 1.0, 0.0),
    "above": ("below", 0.0, 1.0),
}  # relation -> its converse, and the direction from the first thing to the second


class Thing(NamedTuple):
    """One of the two shapes."""

    size: str
    colour: str
    shape: str

    @property
    def phrase(self) -> str:
        return f"a {self.size} {self.colour} {self.shape}"


class RelationsParameters(DrawnParameters):
    """What relations take besides: the concept's name."""

    concept: str = Field("relations", description="The one concept: the dataset's name.")


class Relations(DrawnGenerator):
    """One concept, named by a parameter; what the captions tell is the content."""

    name = "relations"
    Parameters = RelationsParameters

    def known_concepts(self) -> tuple[str, ...]:
        assert isinstance(self.parameters, RelationsParameters)
        if "/" in self.parameters.concept or not self.parameters.concept:
            raise InputError(
                f"generator {self.name!r}: concept = {self.parameters.concept!r} will not do: "
                "it must be a name without '/'"
            )
        return (self.parameters.concept,)

    def draw(self, split: str, concept: str, number: int, rng: np.random.Generator) -> Drawing:
        colours = rng.permutation(len(BRIGHT))  # two colours, so that a word tells the things apart
        first, second = (
            Thing(choose(rng, tuple(SIZES)), BRIGHT[int(colours[i])], choose(rng, SHAPES))
            for i in range(2)
        )
        ground = choose(rng, tuple(GROUNDS))
        relation = choose(rng, tuple(RELATIONS))
        converse, along_x, along_y = RELATIONS[relation]
        captions = some(
            rng,
            (
                f"{first.phrase} {relation} {second.phrase}",
                f"{second.phrase} {converse} {first.phrase}",
                f"{first.phrase} {relation} {second.phrase} on a {ground} background",
                f"{article(first.colour)} {first.shape} is {relation} "
                f"{article(second.colour)} {second.shape}",
                f"{second.phrase} and {first.phrase}",
            ),
        )
        side = float(rng.uniform(-0.12, 0.12)), float(rng.uniform(-0.12, 0.12))
        centres = []
        for sign, thing in ((-1, first), (1, second)):
            along = sign * float(rng.uniform(0.23, 0.27))
            across = side[0 if sign < 0 else 1]
            x, y = (
                0.5 + along * along_x + across * along_y,
                0.5 + along * along_y + across * along_x,
            )
            scale = SIZES[thing.size] * float(rng.uniform(0.9, 1.1))
            outline = turned(OUTLINES[thing.shape], float(rng.uniform(-0.2, 0.2)), scale, x, y)
            centres.append((outline, vary(rng, COLOURS[thing.colour], 16)))
        return Drawing(captions, partial(self._paint, centres, vary(rng, GROUNDS[ground]), rng))

    def _paint(
        self,
        things: list[tuple[np.ndarray, Colour]],
        ground: Colour,
        rng: np.random.Generator,
    ) -> Image.Image:
        canvas = Canvas(self.parameters.size, ground)
        for outline, fill in things:
            canvas.polygon(outline, fill)
        return canvas.finish(rng, noise=4)
