"""One shaded solid in a room with a coloured floor and wall, in the manner of Shapes3D.

The factors follow https://github.com/google-deepmind/3d-shapes; the pictures are our own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from fomo_dagster.data.suite.canvas import BRIGHT, COLOURS, Canvas, Colour, mix, vary
from fomo_dagster.data.suite.drawn import Drawing, DrawnGenerator, article, some

HUES = BRIGHT
PLASTER, STONE = (225, 225, 225), (95, 95, 95)  # what walls and floors are tinted over


class Brush:
    """A solid's frame: x in -1..1 to the right, y in -1..1 upward, standing at y = -1."""

    def __init__(self, canvas: Canvas, x: float, floor: float, scale: float, hue: Colour) -> None:
        self.canvas, self.x, self.floor, self.scale, self.hue = canvas, x, floor, scale, hue

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.x + x * self.scale, self.floor - (y + 1) * self.scale

    def shade(self, light: float) -> Colour:
        """The solid's hue darker (light < 0) or brighter (light > 0)."""
        return mix(self.hue, (255, 255, 255) if light > 0 else (0, 0, 0), abs(light))

    def face(self, points: list[tuple[float, float]], light: float) -> None:
        self.canvas.polygon([self.at(*point) for point in points], self.shade(light))

    def oval(self, x: float, y: float, wide: float, high: float, light: float) -> None:
        centre = self.at(x, y)
        self.canvas.ellipse(*centre, wide * self.scale, high * self.scale, self.shade(light))

    def round_body(self, width_at: Callable[[float], float], low: float, high: float) -> None:
        """A body of revolution, lit from the upper left; `width_at` height is its half width."""
        heights = [float(y) for y in np.linspace(low, high, 20)]
        for strip in np.linspace(-1, 1, 9)[:-1]:
            left = [(float(strip) * width_at(y), y) for y in heights]
            right = [(float(strip + 0.25) * width_at(y), y) for y in heights]
            self.face(left + right[::-1], 0.35 - 0.7 * abs(float(strip) + 0.45))


def _box(
    brush: Brush, left: float, low: float, right: float, high: float, depth: float = 0.35
) -> None:
    up = depth * 0.6
    brush.face([(left, low), (right, low), (right, high), (left, high)], 0)
    brush.face(
        [(left, high), (right, high), (right + depth, high + up), (left + depth, high + up)], 0.4
    )
    brush.face(
        [(right, low), (right + depth, low + up), (right + depth, high + up), (right, high)], -0.45
    )


def _cube(brush: Brush) -> None:
    _box(brush, -0.85, -1, 0.5, 0.35, 0.45)


def _ball(brush: Brush) -> None:
    for step in np.linspace(0, 1, 14):
        brush.oval(
            -0.3 * step, -0.1 + 0.3 * step, 0.9 * (1 - step), 0.9 * (1 - step), 0.75 * step - 0.35
        )


def _cylinder(brush: Brush) -> None:
    brush.oval(0, -0.85, 0.65, 0.2, -0.2)
    brush.round_body(lambda y: 0.65, -0.85, 0.7)
    brush.oval(0, 0.7, 0.65, 0.2, 0.45)


def _cone(brush: Brush) -> None:
    brush.oval(0, -0.8, 0.8, 0.22, -0.2)
    brush.round_body(lambda y: 0.8 * (1 - (y + 0.8) / 1.8), -0.8, 1.0)


def _pyramid(brush: Brush) -> None:
    brush.face([(-0.95, -0.85), (0.25, -1), (0, 0.9)], 0.15)
    brush.face([(0.25, -1), (0.95, -0.6), (0, 0.9)], -0.45)


def _capsule(brush: Brush) -> None:
    brush.round_body(
        lambda y: 0.45 * np.sqrt(max(0.0, 1 - max(0.0, abs(y) - 0.55) ** 2 / 0.2025)), -1, 1
    )


def _doughnut(brush: Brush) -> None:
    turns = np.linspace(0, 2 * np.pi, 28)
    for inner, light in ((0.3, -0.35), (0.22, 0.0), (0.13, 0.3)):
        for turn in turns:
            brush.oval(
                0.65 * np.cos(turn) - 0.03 * light,
                0.5 * np.sin(turn) - 0.2 + 0.1 * light,
                inner,
                inner,
                light,
            )


def _staircase(brush: Brush) -> None:
    for step in range(4):
        left = -0.95 + step * 0.42
        _box(brush, left, -1, 0.75, -0.6 + step * 0.42, 0.3)


def _table(brush: Brush) -> None:
    for x, y in ((-0.6, -0.75), (0.85, -0.75), (-0.85, -1), (0.55, -1)):
        brush.face([(x, y), (x + 0.16, y), (x + 0.16, 0.2), (x, 0.2)], -0.4)
    _box(brush, -0.95, 0.1, 0.72, 0.3, 0.35)


def _chair(brush: Brush) -> None:
    for x, y in ((-0.35, -0.8), (0.6, -0.8), (-0.6, -1), (0.35, -1)):
        brush.face([(x, y), (x + 0.15, y), (x + 0.15, -0.1), (x, -0.1)], -0.4)
    brush.face([(-0.35, 0), (0.75, 0), (0.75, 1), (-0.35, 1)], -0.15)
    _box(brush, -0.62, -0.2, 0.5, -0.05, 0.28)


def _arch(brush: Brush) -> None:
    for angle in np.linspace(0, np.pi, 20):
        x, y = 0.68 * np.cos(angle), 0.1 + 0.62 * np.sin(angle)
        brush.oval(x + 0.14, y + 0.08, 0.24, 0.24, -0.45)
    for angle in np.linspace(0, np.pi, 20):
        brush.oval(0.68 * np.cos(angle), 0.1 + 0.62 * np.sin(angle), 0.24, 0.24, 0.1)
    for x in (-0.68, 0.68):
        _box(brush, x - 0.24, -1, x + 0.24, 0.1, 0.14)


SOLIDS: dict[str, Callable[[Brush], None]] = {
    "cube": _cube,
    "ball": _ball,
    "cylinder": _cylinder,
    "cone": _cone,
    "pyramid": _pyramid,
    "capsule": _capsule,
    "doughnut": _doughnut,
    "staircase": _staircase,
    "table": _table,
    "chair": _chair,
    "archway": _arch,
}


class Rooms(DrawnGenerator):
    """Concept: the solid; hues of object, wall and floor, size and place vary."""

    name = "rooms"

    def known_concepts(self) -> tuple[str, ...]:
        return tuple(SOLIDS)

    def draw(self, split: str, concept: str, number: int, rng: np.random.Generator) -> Drawing:
        thing, wall, floor = (HUES[int(i)] for i in rng.permutation(len(HUES))[:3])
        captions = some(
            rng,
            (
                f"a 3d {concept}",
                f"a solid {concept}",
                f"{article(concept)} in a room",
                f"a rendered {concept}",
                f"a 3d {concept} in {thing}, the wall {wall}, the floor {floor}",
            ),
        )
        pale, dim = mix(COLOURS[wall], PLASTER, 0.6), mix(COLOURS[floor], STONE, 0.6)
        hues = vary(rng, COLOURS[thing]), vary(rng, pale), vary(rng, dim)
        return Drawing(captions, partial(self._paint, SOLIDS[concept], hues, rng))

    def _paint(
        self,
        solid: Callable[[Brush], None],
        hues: tuple[Colour, Colour, Colour],
        rng: np.random.Generator,
    ) -> Image.Image:
        thing, wall, floor = hues
        canvas = Canvas(self.parameters.size, mix(wall, (0, 0, 0), 0.15))
        corner, horizon = float(rng.uniform(0.1, 0.9)), float(rng.uniform(0.5, 0.6))
        canvas.rectangle(0, 0, corner, horizon, mix(wall, (255, 255, 255), 0.15))
        canvas.polygon(
            [(0, horizon + 0.06), (corner, horizon), (1, horizon + 0.06), (1, 1), (0, 1)], floor
        )
        scale = float(rng.uniform(0.33, 0.42))
        x = float(rng.uniform(scale + 0.06, 0.94 - scale))
        base = float(rng.uniform(max(horizon + 0.12, 2 * scale + 0.02), 0.95))
        shadow = mix(floor, (0, 0, 0), 0.45)
        canvas.ellipse(x + 0.1 * scale, base - 0.02, scale, scale * 0.22, shadow)
        solid(Brush(canvas, x, base, scale, thing))
        return canvas.finish(rng, noise=4)
