"""One flat shape on a plain ground, in the manner of dSprites (shape × colour × place × size).

The factors follow https://github.com/google-deepmind/dsprites-dataset; the pictures are our own.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL import Image

from fomo_dagster.data.suite.canvas import BRIGHT, COLOURS, Canvas, Colour, mix, turned, vary
from fomo_dagster.data.suite.drawn import Drawing, DrawnGenerator, article, choose, some
from fomo_dagster.data.suite.outlines import OUTLINES

GROUNDS: dict[str, Colour] = {
    "black": COLOURS["black"],
    "dark": mix(COLOURS["black"], COLOURS["blue"], 0.25),
    "grey": COLOURS["grey"],
    "light": mix(COLOURS["white"], COLOURS["yellow"], 0.25),
    "white": COLOURS["white"],
}
SIZES = {"small": (0.16, 0.22), "medium-sized": (0.22, 0.30), "large": (0.30, 0.40)}
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "centre", "right")


class Sprites(DrawnGenerator):
    """Concept: the shape."""

    name = "sprites"

    def known_concepts(self) -> tuple[str, ...]:
        return tuple(OUTLINES)

    def draw(self, split: str, concept: str, number: int, rng: np.random.Generator) -> Drawing:
        colour = choose(rng, BRIGHT)
        ground = choose(rng, tuple(GROUNDS))
        size = choose(rng, tuple(SIZES))
        radius = float(rng.uniform(*SIZES[size]))
        x, y = rng.uniform(radius + 0.02, 0.98 - radius, 2)
        row, column = ROWS[int(y * 3)], COLUMNS[int(x * 3)]
        place = "centre" if (row, column) == ("middle", "centre") else f"{row} {column}"
        captions = some(
            rng,
            (
                f"a drawing of {article(concept)}",
                f"{article(colour)} {concept}",
                f"a {size} {colour} {concept} on a {ground} background",
                f"{article(colour)} {concept} in the {place}",
                f"a picture of a {size} {concept}",
                f"a drawing of {article(colour)} {concept}",
            ),
        )
        ground_colour = vary(rng, GROUNDS[ground])
        outline = turned(OUTLINES[concept], float(rng.uniform(-0.35, 0.35)), radius, x, y)
        shade = vary(rng, COLOURS[colour], 20)
        return Drawing(captions, partial(self._paint, outline, shade, ground_colour, rng))

    def _paint(
        self, outline: np.ndarray, fill: Colour, ground: Colour, rng: np.random.Generator
    ) -> Image.Image:
        canvas = Canvas(self.parameters.size, ground)
        canvas.polygon(outline, fill)
        return canvas.finish(rng, noise=4)
