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
    "dark blue": mix(COLOURS["black"], COLOURS["blue"], 0.25),
    "dark grey": mix(COLOURS["black"], COLOURS["grey"], 0.4),
}
SIZES = {"small": (0.24, 0.29), "medium-sized": (0.29, 0.35), "large": (0.35, 0.42)}


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
        x, y = rng.uniform(radius + 0.02, 0.98 - radius, 2) * 0.7 + 0.15
        captions = some(
            rng,
            (
                f"a drawing of {article(concept)}",
                f"{article(concept)}",
                f"a picture of {article(concept)}",
                f"a {size} {concept} on a {ground} background",
                f"a drawing of {article(colour)} {concept}",
            ),
        )
        ground_colour = vary(rng, GROUNDS[ground])
        outline = turned(OUTLINES[concept], float(rng.uniform(-0.25, 0.25)), radius, x, y)
        shade = vary(rng, COLOURS[colour], 20)
        return Drawing(captions, partial(self._paint, outline, shade, ground_colour, rng))

    def _paint(
        self, outline: np.ndarray, fill: Colour, ground: Colour, rng: np.random.Generator
    ) -> Image.Image:
        canvas = Canvas(self.parameters.size, ground)
        canvas.polygon(outline, fill)
        return canvas.finish(rng, noise=4)
