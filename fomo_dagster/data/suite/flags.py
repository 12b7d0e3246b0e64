"""National flags of simple design, waving before the sky."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from fomo_dagster.data.suite.canvas import Colour, to_image
from fomo_dagster.data.suite.drawn import Drawing, DrawnGenerator, choose, some

OVERSAMPLING = 2
INKS: dict[str, Colour] = {
    "black": (15, 15, 15),
    "blue": (10, 60, 150),
    "gold": (250, 205, 20),
    "green": (10, 120, 75),
    "red": (205, 25, 45),
    "sky blue": (75, 165, 220),
    "white": (250, 250, 250),
}
SKIES = {
    "a blue sky": (120, 175, 235),
    "a grey sky": (165, 170, 178),
    "a dusk sky": (220, 150, 110),
}

Design = Callable[[np.ndarray, np.ndarray], np.ndarray]  # along, down in 0..1 -> index of the ink


def _vertical(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (u * 3).astype(int)


def _horizontal(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (v * 3).astype(int)


def _halves(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (v * 2).astype(int)


def _disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (np.hypot((u - 0.5) * 1.5, v - 0.5) < 0.3).astype(int)


def _nordic(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return ((np.abs(u - 0.37) < 0.075) | (np.abs(v - 0.5) < 0.11)).astype(int)


def _swiss(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    x, y = np.abs(u - 0.5) * 1.5, np.abs(v - 0.5)
    return (((x < 0.1) & (y < 0.32)) | ((y < 0.1) & (x < 0.32))).astype(int)


FLAGS: dict[str, tuple[Design, tuple[str, ...]]] = {
    "France": (_vertical, ("blue", "white", "red")),
    "Italy": (_vertical, ("green", "white", "red")),
    "Belgium": (_vertical, ("black", "gold", "red")),
    "Nigeria": (_vertical, ("green", "white", "green")),
    "Germany": (_horizontal, ("black", "red", "gold")),
    "Austria": (_horizontal, ("red", "white", "red")),
    "Ukraine": (_halves, ("blue", "gold")),
    "Poland": (_halves, ("white", "red")),
    "Japan": (_disc, ("white", "red")),
    "Bangladesh": (_disc, ("green", "red")),
    "Sweden": (_nordic, ("blue", "gold")),
    "Denmark": (_nordic, ("red", "white")),
    "Finland": (_nordic, ("white", "blue")),
    "Switzerland": (_swiss, ("red", "white")),
}


class Flags(DrawnGenerator):
    """Concept: the country."""

    name = "flags"

    def known_concepts(self) -> tuple[str, ...]:
        return tuple(FLAGS)

    def draw(self, split: str, concept: str, number: int, rng: np.random.Generator) -> Drawing:
        sky = choose(rng, tuple(SKIES))
        captions = some(
            rng,
            (
                f"the flag of {concept}",
                f"the national flag of {concept} waving before {sky}",
                f"a flag from {concept}",
                f"{concept}'s flag in the wind",
            ),
        )
        return Drawing(captions, partial(self._paint, *FLAGS[concept], SKIES[sky], rng))

    def _paint(
        self, design: Design, inks: tuple[str, ...], sky: Colour, rng: np.random.Generator
    ) -> Image.Image:
        size = self.parameters.size
        axis = (np.arange(size * OVERSAMPLING, dtype=np.float32) + 0.5) / (size * OVERSAMPLING)
        x, y = np.meshgrid(axis, axis)
        width, height = rng.uniform(0.72, 0.9), rng.uniform(0.5, 0.66)
        left, top = rng.uniform(0.06, 0.96 - width), rng.uniform(0.06, 0.94 - height)
        slope, swing = rng.uniform(-0.12, 0.12), rng.uniform(0.01, 0.05)
        turns, phase = rng.uniform(0.8, 1.8), rng.uniform(0, 2 * np.pi)
        u = (x - left) / width
        wave = 2 * np.pi * turns * u + phase
        v = (y - top - slope * (u - 0.5) - swing * np.sin(wave)) / height
        inside = (u >= 0) & (u < 1) & (v >= 0) & (v < 1)
        palette = np.array([INKS[ink] for ink in inks], dtype=np.float32)
        cloth = palette[np.clip(design(u, v), 0, len(inks) - 1)]
        cloth *= (0.88 + 0.12 * np.cos(wave + 0.6))[..., None]  # light and shade of the folds
        ground = np.array(sky, dtype=np.float32) * (1.08 - 0.2 * y)[..., None]
        pole = (x > left - 0.035) & (x < left) & (y > top - 0.04)
        ground = np.where(pole[..., None], np.float32(70), ground)
        pixels = np.where(inside[..., None], cloth, ground) * rng.uniform(0.85, 1.05)
        pixels = pixels.reshape(size, OVERSAMPLING, size, OVERSAMPLING, 3).mean((1, 3))
        return to_image(pixels + rng.normal(0, 5, pixels.shape))
