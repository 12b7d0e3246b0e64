"""Two-coloured patterns that fill the picture: stripes, checks, dots, waves and the like.

Each pattern is a function of the plane with values in 0..1, the share of the second colour.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from fomo_dagster.data.suite.canvas import COLOURS, Colour, ink_and_paper, to_image, vary
from fomo_dagster.data.suite.drawn import Drawing, DrawnGenerator, choose, some

OVERSAMPLING = 2
Pattern = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def _sharp(wave: np.ndarray) -> np.ndarray:
    """A wave around 0 as an edge: 0 below, 1 above, with a short slope between."""
    return np.clip(wave * 4 + 0.5, 0, 1)


def _stripes(direction: float) -> Pattern:
    def pattern(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        angle = direction + rng.uniform(-0.12, 0.12)
        frequency = rng.uniform(3, 6) * 2 * np.pi
        return _sharp(
            np.sin(frequency * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0, 6.3))
        )

    return pattern


def _checkerboard(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    frequency = rng.uniform(1.5, 3.5) * 2 * np.pi
    phase = rng.uniform(0, 6, 2)
    return _sharp(2 * np.sin(frequency * x + phase[0]) * np.sin(frequency * y + phase[1]))


def _polka_dots(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    frequency, phase = rng.uniform(3, 5.5), rng.uniform(0, 1, 2)
    row = y * frequency + phase[1]
    column = x * frequency + phase[0] + 0.5 * (np.floor(row) % 2)
    distance = np.hypot(column % 1 - 0.5, row % 1 - 0.5)
    return _sharp(2 * (rng.uniform(0.24, 0.34) - distance))


def _waves(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    swing = rng.uniform(0.05, 0.09) * np.sin(
        2 * np.pi * rng.uniform(1.6, 2.6) * x + rng.uniform(0, 6.3)
    )
    return _sharp(np.sin(2 * np.pi * rng.uniform(3, 4.5) * (y + swing) + rng.uniform(0, 6.3)))


def _zigzags(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    teeth = np.abs((x * rng.uniform(2.5, 4) + rng.uniform()) % 1 - 0.5)
    return _sharp(
        np.sin(2 * np.pi * (rng.uniform(2.5, 3.5) * y + 1.6 * teeth) + rng.uniform(0, 6.3))
    )


def _rings(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    centre = rng.uniform(0.35, 0.65, 2)
    radius = np.hypot(x - centre[0], y - centre[1])
    return _sharp(np.sin(2 * np.pi * rng.uniform(4, 6.5) * radius + rng.uniform(0, 6.3)))


def _sunburst(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    centre = rng.uniform(0.35, 0.65, 2)
    angle = np.arctan2(y - centre[1], x - centre[0])
    return _sharp(np.sin(int(rng.integers(5, 9)) * angle + rng.uniform(0, 6.3)))


def _spiral(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    centre = rng.uniform(0.4, 0.6, 2)
    radius = np.hypot(x - centre[0], y - centre[1])
    turn = choose(rng, (-1, 1)) * np.arctan2(y - centre[1], x - centre[0])
    return _sharp(np.sin(2 * np.pi * rng.uniform(3, 4.5) * radius + turn + rng.uniform(0, 6.3)))


def _grid(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    frequency, phase = rng.uniform(2.5, 5), rng.uniform(0, 1, 2)
    lines = [np.abs((axis * frequency + phase[i]) % 1 - 0.5) for i, axis in enumerate((x, y))]
    return _sharp(2 * (rng.uniform(0.1, 0.16) - np.minimum(*lines)))


def _camouflage(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    total = np.zeros_like(x)
    for _ in range(7):
        angle, frequency = rng.uniform(0, 2 * np.pi), rng.uniform(1, 3) * 2 * np.pi
        total += np.sin(frequency * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0, 6.3))
    return _sharp(total)


def _static(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0, 1, x.shape)


PATTERNS: dict[str, Pattern] = {
    "horizontal stripes": _stripes(np.pi / 2),
    "vertical stripes": _stripes(0.0),
    "diagonal stripes": _stripes(np.pi / 4),
    "a checkerboard": _checkerboard,
    "polka dots": _polka_dots,
    "waves": _waves,
    "zigzags": _zigzags,
    "concentric rings": _rings,
    "a sunburst": _sunburst,
    "a spiral": _spiral,
    "a grid": _grid,
    "camouflage": _camouflage,
    "static": _static,
}


class Textures(DrawnGenerator):
    """Concept: the pattern."""

    name = "textures"

    def known_concepts(self) -> tuple[str, ...]:
        return tuple(PATTERNS)

    def draw(self, split: str, concept: str, number: int, rng: np.random.Generator) -> Drawing:
        first, second = ink_and_paper(rng)
        captions = some(
            rng,
            (
                f"a pattern of {concept}",
                f"a texture of {concept}",
                f"{concept} in {first} and {second}",
                f"{concept}",
                f"a picture of {concept}",
            ),
        )
        colours = vary(rng, COLOURS[first], 20), vary(rng, COLOURS[second], 20)
        return Drawing(captions, partial(self._paint, PATTERNS[concept], colours, rng))

    def _paint(
        self, pattern: Pattern, colours: tuple[Colour, Colour], rng: np.random.Generator
    ) -> Image.Image:
        size = self.parameters.size
        axis = (np.arange(size * OVERSAMPLING, dtype=np.float32) + 0.5) / (size * OVERSAMPLING)
        x, y = np.meshgrid(axis, axis)
        share = pattern(x, y, rng).reshape(size, OVERSAMPLING, size, OVERSAMPLING).mean((1, 3))
        first, second = (np.array(colour, dtype=np.float32) for colour in colours)
        pixels = first + share[..., None] * (second - first)  # (size, size, 3)
        return to_image(pixels + rng.normal(0, 5, pixels.shape))
