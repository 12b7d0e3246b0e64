"""Land as seen from the air: fields, woods, water, roads and buildings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageFilter

from fomo_dagster.data.suite.canvas import Canvas, Colour, mix, turned, vary
from fomo_dagster.data.suite.drawn import Drawing, DrawnGenerator, article, choose, some

GREEN, WOOD, SOIL, SAND = (105, 145, 75), (40, 85, 45), (135, 105, 75), (220, 190, 140)
WATER, ASPHALT, CONCRETE, ROOF = (45, 95, 150), (85, 85, 90), (185, 185, 180), (175, 85, 65)
WHITE: Colour = (240, 240, 240)
SEASONS = {"spring": (120, 175, 90), "summer": (150, 150, 80), "autumn": (160, 125, 75)}

Painter = Callable[[Canvas, np.random.Generator], None]
SQUARE = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=float)


def _block(
    canvas: Canvas, x: float, y: float, wide: float, high: float, angle: float, fill: Colour
) -> None:
    canvas.polygon(turned(SQUARE * np.array([wide, high]), angle, 1, x, y), fill)


def _bend(rng: np.random.Generator, angle: float, offset: float, swing: float) -> np.ndarray:
    """A winding line across the picture: (30, 2)."""
    t = np.linspace(-0.9, 0.9, 30)
    side = offset + swing * np.sin(t * rng.uniform(4, 7) + rng.uniform(0, 6.3))
    return turned(np.stack([t, side], axis=1), angle, 1, 0.5, 0.5)


def _path(canvas: Canvas, points: np.ndarray, width: float, fill: Colour) -> None:
    canvas.line([(float(x), float(y)) for x, y in points], width, fill)


def _rows(
    canvas: Canvas, rng: np.random.Generator, colours: tuple[Colour, ...], step: float
) -> None:
    angle = rng.uniform(0, np.pi)
    for i, offset in enumerate(np.arange(-0.8, 0.8, step)):
        points = _bend(rng, angle, float(offset), 0)
        _path(canvas, points, step * 1.05, vary(rng, colours[i % len(colours)], 8))


def _forest(canvas: Canvas, rng: np.random.Generator) -> None:
    for x, y in rng.uniform(-0.05, 1.05, (170, 2)):
        radius = rng.uniform(0.04, 0.075)
        canvas.ellipse(x + 0.015, y + 0.015, radius, radius, mix(WOOD, (0, 0, 0), 0.5))
        canvas.ellipse(x, y, radius, radius, vary(rng, WOOD, 22))


def _river(canvas: Canvas, rng: np.random.Generator) -> None:
    points = _bend(rng, rng.uniform(0, np.pi), rng.uniform(-0.1, 0.1), rng.uniform(0.1, 0.18))
    width = rng.uniform(0.12, 0.2)
    _path(canvas, points, width * 1.35, vary(rng, SAND))
    _path(canvas, points, width, vary(rng, WATER))


def _motorway(canvas: Canvas, rng: np.random.Generator) -> None:
    angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.15, 0.15)
    for side in (-0.085, 0.085):
        points = _bend(rng, angle, offset + side, 0)
        _path(canvas, points, 0.15, ASPHALT)
        _path(canvas, points, 0.015, WHITE)
        for share in rng.uniform(0.2, 0.8, 3):
            x, y = points[int(share * 29)]
            colour = choose(rng, ((200, 30, 30), WHITE, (30, 60, 160)))
            _block(canvas, x, y, 0.045, 0.025, angle, colour)


def _village(canvas: Canvas, rng: np.random.Generator) -> None:
    angle = rng.uniform(0, np.pi)
    for offset in (-0.35, 0.0, 0.35):
        _path(canvas, _bend(rng, angle, offset, 0), 0.05, vary(rng, CONCRETE))
        for along in np.arange(-0.7, 0.7, 0.17):
            for side in (-0.1, 0.1):
                x, y = turned(np.array([(along, offset + side)]), angle, 1, 0.5, 0.5)[0]
                _block(canvas, x, y, 0.06, 0.045, angle, vary(rng, ROOF, 25))


def _ploughed(canvas: Canvas, rng: np.random.Generator) -> None:
    _rows(canvas, rng, (SOIL, mix(SOIL, (0, 0, 0), 0.35)), rng.uniform(0.05, 0.07))


def _orchard(canvas: Canvas, rng: np.random.Generator) -> None:
    angle, step = rng.uniform(0, np.pi / 2), rng.uniform(0.14, 0.19)
    for along in np.arange(-0.75, 0.76, step):
        for across in np.arange(-0.75, 0.76, step):
            x, y = turned(np.array([(along, across)]), angle, 1, 0.5, 0.5)[0]
            canvas.ellipse(x, y, step * 0.32, step * 0.32, vary(rng, WOOD))


def _dunes(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.rectangle(0, 0, 1, 1, vary(rng, SAND))
    angle = rng.uniform(-0.4, 0.4)
    for offset in np.arange(-0.8, 0.8, rng.uniform(0.13, 0.18)):
        points = _bend(rng, angle, float(offset), 0.045)
        _path(canvas, points, 0.05, mix(SAND, (120, 80, 40), 0.55))
        _path(canvas, points - np.array([0, 0.03]), 0.025, mix(SAND, WHITE, 0.6))


def _lake(canvas: Canvas, rng: np.random.Generator) -> None:
    angles = np.linspace(0, 2 * np.pi, 40)
    radius = 0.3 + 0.05 * np.sin(2 * angles + rng.uniform(0, 6.3)) + 0.04 * np.sin(3 * angles)
    shore = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius[:, None]
    x, y = rng.uniform(0.42, 0.58, 2)
    canvas.polygon(turned(shore * 1.12, 0, 1, x, y), vary(rng, SAND))
    canvas.polygon(turned(shore, 0, 1, x, y), vary(rng, WATER))


def _irrigation(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.rectangle(0, 0, 1, 1, vary(rng, SAND))
    shift = rng.uniform(-0.2, 0.2, 2)
    for column in range(-1, 3):
        for row in range(-1, 3):
            x, y = 0.25 + 0.5 * column + shift[0], 0.25 + 0.5 * row + shift[1]
            fill = vary(rng, choose(rng, (WOOD, GREEN, (90, 130, 50))), 15)
            canvas.ellipse(x, y, 0.23, 0.23, fill)


def _runway(canvas: Canvas, rng: np.random.Generator) -> None:
    angle = rng.uniform(0, np.pi)
    points = _bend(rng, angle, rng.uniform(-0.1, 0.1), 0)
    _path(canvas, points, 0.3, ASPHALT)
    for i in range(1, 28, 3):
        x, y = points[i]
        _block(canvas, x, y, 0.045, 0.015, angle, WHITE)
    for side in (-0.09, -0.05, 0.05, 0.09):
        x, y = turned(np.array([(rng.uniform(0.28, 0.3), side)]), angle, 1, *points[15])[0]
        _block(canvas, x, y, 0.07, 0.012, angle, WHITE)


def _car_park(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.rectangle(0, 0, 1, 1, vary(rng, (120, 120, 125)))
    angle = rng.uniform(-0.3, 0.3)
    for across in np.arange(-0.66, 0.67, 0.3):
        for along in np.arange(-0.7, 0.71, 0.115):
            x, y = turned(np.array([(along, across)]), angle, 1, 0.5, 0.5)[0]
            _block(canvas, x + 0.055, y, 0.006, 0.1, angle, WHITE)
            if rng.random() < 0.7:
                colour = choose(rng, ((200, 30, 30), WHITE, (30, 60, 160), (25, 25, 25)))
                _block(canvas, x, y, 0.035, 0.075, angle, colour)


def _roundabout(canvas: Canvas, rng: np.random.Generator) -> None:
    x, y = (float(value) for value in rng.uniform(0.42, 0.58, 2))
    arms, first = int(rng.integers(3, 6)), rng.uniform(0, 6.3)
    for arm in range(arms):
        angle = first + 2 * np.pi * arm / arms
        canvas.line([(x, y), (x + np.cos(angle), y + np.sin(angle))], 0.12, ASPHALT)
    canvas.ellipse(x, y, 0.29, 0.29, ASPHALT)
    canvas.ellipse(x, y, 0.15, 0.15, vary(rng, WOOD, 20))


def _marina(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.rectangle(0, 0, 1, 1, vary(rng, WATER))
    angle = rng.uniform(0, np.pi)
    for offset in (-0.3, 0.05, 0.4):
        _path(canvas, _bend(rng, angle, offset, 0), 0.035, (160, 130, 95))
        for along in np.arange(-0.7, 0.71, 0.12):
            x, y = turned(np.array([(along, offset + 0.1)]), angle, 1, 0.5, 0.5)[0]
            hull = SQUARE * np.array([0.032, 0.075])
            canvas.polygon(turned(np.vstack([hull, [(-0.03, 0.1)]])[:4], angle, 1, x, y), WHITE)


LANDS: dict[str, Painter] = {
    "forest": _forest,
    "river": _river,
    "motorway": _motorway,
    "village": _village,
    "ploughed field": _ploughed,
    "orchard": _orchard,
    "desert": _dunes,
    "lake": _lake,
    "irrigated farm": _irrigation,
    "runway": _runway,
    "car park": _car_park,
    "roundabout": _roundabout,
    "marina": _marina,
}


class Aerial(DrawnGenerator):
    """Concept: the use of the land."""

    name = "aerial"

    def known_concepts(self) -> tuple[str, ...]:
        return tuple(LANDS)

    def draw(self, split: str, concept: str, number: int, rng: np.random.Generator) -> Drawing:
        season = choose(rng, tuple(SEASONS))
        it = article(concept)
        captions = some(
            rng,
            (
                f"an aerial photo of {it}",
                f"{it} seen from above",
                f"a satellite image of {it} in {season}",
                f"{it} from the air",
            ),
        )
        return Drawing(captions, partial(self._paint, LANDS[concept], SEASONS[season], rng))

    def _paint(self, land: Painter, meadow: Colour, rng: np.random.Generator) -> Image.Image:
        canvas = Canvas(self.parameters.size, vary(rng, mix(GREEN, meadow, 0.6), 10))
        _patches(canvas, rng)
        land(canvas, rng)
        canvas.image = canvas.image.filter(ImageFilter.BoxBlur(1))
        return canvas.finish(rng, noise=7)


def _patches(canvas: Canvas, rng: np.random.Generator) -> None:
    """Meadows of slightly different green under everything."""
    angle = rng.uniform(0, np.pi)
    ground: Colour = canvas.image.getpixel((0, 0))  # type: ignore[assignment]
    for x, y in rng.uniform(0, 1, (3, 2)):
        _block(
            canvas, x, y, rng.uniform(0.2, 0.4), rng.uniform(0.2, 0.4), angle, vary(rng, ground, 14)
        )
