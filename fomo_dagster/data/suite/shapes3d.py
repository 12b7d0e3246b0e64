"""Shapes3D rendered: a solid in a room, over every hue, size and view of the original.

The factors are those of https://github.com/google-deepmind/3d-shapes: 10 floor hues x 10 wall hues
x 10 object hues x 8 scales x 4 shapes x 15 orientations in pictures of 64 pixels; the pictures are
traced here and are not the original's. The benchmark's 864 classes name the shape and one of six
colours for each of the three, as in "pink cube on a blue floor with a yellow wall"; which hues it
calls by which name is assumed.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image

from fomo_dagster.data.suite.canvas import to_image
from fomo_dagster.data.suite.factors import Cell, FactorGenerator
from fomo_dagster.data.suite.solids import Array, Hits, Rays, intersect

SIZE = 64  # pixels
RAYS = 2  # per pixel and side, averaged
SHAPES = ("cube", "cylinder", "sphere", "pill")
COLOURS = (  # of the hues 0, 0.1, … 0.9
    "red", "orange", "yellow", "green", "green", "blue", "blue", "blue", "pink", "pink",
)  # fmt: skip
SIZES = ("small", "medium-sized", "large")

ROOM = 3.4  # half its width
EYE = (2.9, 1.75)  # distance from the solid, and height
LOOKED_AT = 0.6  # height
FIELD = 0.45  # tangent of half the field of view
LIGHT = np.array([0.45, 0.8, 0.4]) / np.linalg.norm([0.45, 0.8, 0.4])
AMBIENT, SHADOW = 0.45, 0.6


class Shapes3D(FactorGenerator):
    """Concept: the shape and its colour, the floor's and the wall's."""

    name = "shapes3d"
    factors = {  # noqa: RUF012
        "floor": 10, "wall": 10, "object": 10, "scale": 8, "shape": 4, "orientation": 15
    }  # fmt: skip

    def groups(self) -> dict[str, Sequence[int]]:
        names = list(dict.fromkeys(COLOURS))
        colours = [names.index(colour) for colour in COLOURS]
        return {"floor": colours, "wall": colours, "object": colours, "shape": range(4)}

    def concept(self, cell: Cell) -> str:
        floor, wall, thing, _, shape, _ = cell
        return (
            f"{COLOURS[thing]} {SHAPES[shape]} on a {COLOURS[floor]} floor "
            f"with a {COLOURS[wall]} wall"
        )

    def captions(self, cell: Cell, concept: str) -> tuple[str, ...]:
        return (
            f"A photo of a synthetic {concept}.",
            f"A photo of a {SIZES[cell[3] * 3 // 8]} synthetic {concept}.",
        )

    def paint(self, cell: Cell) -> Image.Image:
        floor, wall, thing, scale, shape, orientation = cell
        hues = np.stack([_rgb(floor), _rgb(wall), _rgb(thing)])
        return to_image(255 * (_light(SHAPES[shape], scale, orientation) @ hues))


@cache
def _light(shape: str, scale: int, orientation: int) -> Array:
    """How much of the floor's, the wall's and the solid's hue each pixel has: (SIZE, SIZE, 3).

    A picture is these times the hues; all 480 of them fit into 48 MB.
    """
    size = 0.6 * (0.75 + 0.5 * scale / 7)
    rays = _view(orientation)
    floor, walls, solid = _floor(rays), _walls(rays), intersect(shape, size, rays)
    is_solid = solid.distance < np.minimum(floor.distance, walls.distance)
    is_floor = (floor.distance < walls.distance) & ~is_solid
    is_wall = ~is_floor & ~is_solid
    light = np.stack(
        [
            is_floor * _lit(floor.normal) * _shadow(shape, size, rays, floor.distance),
            is_wall * _lit(walls.normal),
            np.where(is_solid, _lit(solid.normal), 0.0),  # where it misses, it has no normal
        ],
        axis=1,
    )  # (rays, 3)
    pixels: Array = light.reshape(SIZE, RAYS, SIZE, RAYS, 3).mean(axis=(1, 3))
    return pixels


@cache
def _view(orientation: int) -> Rays:
    """The rays of a camera that looks at the solid from -30 to 30 degrees around it."""
    angle = np.deg2rad(-30 + 60 * orientation / 14)
    distance, height = EYE
    eye = np.array([distance * np.sin(angle), height, distance * np.cos(angle)])
    ahead = np.array([0.0, LOOKED_AT, 0.0]) - eye
    ahead /= np.linalg.norm(ahead)
    right = np.cross(ahead, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, ahead)
    across = FIELD * (2 * (np.arange(SIZE * RAYS) + 0.5) / (SIZE * RAYS) - 1)
    x, y = np.meshgrid(across, -across)
    directions = ahead + x[..., None] * right + y[..., None] * up
    directions = directions.reshape(-1, 3)
    return Rays(np.broadcast_to(eye, directions.shape), directions)


def _floor(rays: Rays) -> Hits:
    distance = -rays.origins[:, 1] / rays.directions[:, 1]
    normal = np.broadcast_to([0.0, 1.0, 0.0], rays.directions.shape)
    return Hits(np.where(distance > 0, distance, np.inf), normal)


def _walls(rays: Rays) -> Hits:
    """The four walls of a square room, from inside, endlessly high."""
    sides = rays.directions[:, (0, 2)]
    reach = (np.sign(sides) * ROOM - rays.origins[:, (0, 2)]) / sides  # (N, 2)
    first = reach.argmin(axis=1)
    normal = np.zeros_like(rays.directions)
    rows = np.arange(len(first))
    normal[rows, 2 * first] = -np.sign(sides[rows, first])
    return Hits(reach[rows, first], normal)


def _shadow(shape: str, size: float, rays: Rays, distance: Array) -> Array:
    """SHADOW where the solid stands between a point of the floor and the light, 1 elsewhere."""
    reached = np.isfinite(distance)
    points = rays.origins + np.where(reached, distance, 0)[:, None] * rays.directions
    hits = intersect(shape, size, Rays(points, np.broadcast_to(LIGHT, points.shape)))
    return np.where(reached & np.isfinite(hits.distance), SHADOW, 1.0)


def _lit(normal: Array) -> Array:
    """Lambert's law with some light from everywhere: (N,)."""
    lit: Array = AMBIENT + (1 - AMBIENT) * np.clip(normal @ LIGHT, 0, None)
    return lit


def _rgb(hue: int) -> Array:
    return np.array(colorsys.hsv_to_rgb(hue / 10, 0.8, 1.0))
