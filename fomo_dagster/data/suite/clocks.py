"""Clock faces that show a full hour."""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL import Image

from fomo_dagster.data.suite.canvas import COLOURS, Canvas, vary
from fomo_dagster.data.suite.drawn import Drawing, DrawnGenerator, choose, some

HOURS = (
    "one", "two", "three", "four", "five", "six",
    "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
DIALS = ("white", "yellow", "cyan", "pink")
RIMS = ("red", "blue", "green", "brown", "grey", "black")


class Clocks(DrawnGenerator):
    """Concept: the hour, as in "three o'clock"; colours, size, place and tilt vary."""

    name = "clocks"

    def known_concepts(self) -> tuple[str, ...]:
        return tuple(f"{hour} o'clock" for hour in HOURS)

    def draw(self, split: str, concept: str, number: int, rng: np.random.Generator) -> Drawing:
        hour = HOURS.index(concept.split()[0]) + 1
        dial = choose(rng, DIALS)
        rim = choose(rng, RIMS)
        captions = some(
            rng,
            (
                concept,
                f"it is {concept}",
                f"a clock at {concept}",
                f"{concept} on a {dial} clock with a {rim} rim",
            ),
        )
        return Drawing(captions, partial(self._paint, hour, dial, rim, rng))

    def _paint(self, hour: int, dial: str, rim: str, rng: np.random.Generator) -> Image.Image:
        canvas = Canvas(self.parameters.size, vary(rng, (150, 150, 150), 50))
        radius = float(rng.uniform(0.43, 0.48))
        x, y = (float(value) for value in rng.uniform(radius + 0.01, 0.99 - radius, 2))
        tilt = float(rng.uniform(-0.08, 0.08))
        canvas.ellipse(x, y, radius, radius, vary(rng, COLOURS[rim]))
        canvas.ellipse(x, y, radius * 0.86, radius * 0.86, vary(rng, COLOURS[dial]))
        ink = vary(rng, COLOURS["black"])

        def spoke(turn: float, start: float, stop: float, width: float) -> None:
            angle = 2 * np.pi * turn + tilt
            along_x, along_y = float(np.sin(angle)) * radius, -float(np.cos(angle)) * radius
            ends = [(x + along_x * end, y + along_y * end) for end in (start, stop)]
            canvas.line(ends, width * radius, ink)

        for tick in range(12):
            spoke(tick / 12, 0.72 if tick % 3 == 0 else 0.77, 0.83, 0.05)
        spoke(0, -0.1, 0.72, 0.06)
        spoke(hour / 12, -0.15, 0.56, 0.24)
        canvas.ellipse(x, y, 0.09 * radius, 0.09 * radius, ink)
        return canvas.finish(rng, noise=4)
