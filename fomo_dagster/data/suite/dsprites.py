"""dSprites rendered: a white shape on black, at every scale, orientation and place of the original.

The factors are those of https://github.com/google-deepmind/dsprites-dataset: 3 shapes x 6 scales x
40 orientations x 32 x 32 positions in binary pictures of 64 pixels. The pictures are drawn here, so
their outlines are not the original's to the pixel. The benchmark has 27 classes; what they are
called is not published apart from its release: here they are shape and ninth of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from fomo_dagster.data.suite.canvas import Canvas, turned
from fomo_dagster.data.suite.factors import Cell, FactorGenerator
from fomo_dagster.data.suite.outlines import OUTLINES

SIZE = 64  # pixels
RADIUS = 0.21  # of the largest outline's unit circle, over the picture's side
MARGIN = 0.25  # between the picture's edge and the first position
SHAPES = {
    "square": OUTLINES["square"],
    "ellipse": OUTLINES["circle"] * np.array([1.0, 0.55]),
    "heart": OUTLINES["heart"],
}
THIRDS = tuple(position * 3 // 32 for position in range(32))
SIZES = ("small", "medium-sized", "large")  # two scales each
PLACES = (
    ("in the upper left corner", "at the top", "in the upper right corner"),
    ("on the left", "in the middle", "on the right"),
    ("in the lower left corner", "at the bottom", "in the lower right corner"),
)


class DSprites(FactorGenerator):
    """Concept: the shape, and the ninth of the picture that it stands in."""

    name = "dsprites"
    factors = {"shape": 3, "scale": 6, "orientation": 40, "x": 32, "y": 32}  # noqa: RUF012

    def groups(self) -> dict[str, Sequence[int]]:
        return {"shape": range(3), "x": THIRDS, "y": THIRDS}

    def concept(self, cell: Cell) -> str:
        shape, _, _, x, y = cell
        return f"{tuple(SHAPES)[shape]} {PLACES[THIRDS[y]][THIRDS[x]]}"

    def captions(self, cell: Cell, concept: str) -> tuple[str, ...]:
        return (
            f"A black-and-white photo of a {concept}.",
            f"A black-and-white photo of a {SIZES[cell[1] // 2]} {concept}.",
        )

    def paint(self, cell: Cell) -> Image.Image:
        shape, scale, orientation, x, y = cell
        canvas = Canvas(SIZE, (0, 0, 0))
        canvas.polygon(
            turned(
                tuple(SHAPES.values())[shape],
                2 * np.pi * orientation / 40,
                RADIUS * (0.5 + 0.1 * scale),
                MARGIN + (1 - 2 * MARGIN) * x / 31,
                MARGIN + (1 - 2 * MARGIN) * y / 31,
            ),
            (255, 255, 255),
        )
        return canvas.finish().convert("L").point(lambda value: 255 * (value >= 128)).convert("RGB")
