"""Where rays meet simple solids that stand on the floor y = 0 around the axis x = z = 0."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
NEAR = 1e-6  # what is nearer than this is the surface that the ray starts from


class Rays(NamedTuple):
    """Half lines: `origins` (N, 3) and `directions` (N, 3), y pointing up."""

    origins: Array
    directions: Array


class Hits(NamedTuple):
    """`distance` (N,) along each ray, infinite where it misses, and `normal` (N, 3) there."""

    distance: Array
    normal: Array


def intersect(shape: str, size: float, rays: Rays) -> Hits:
    """The first point of the solid on each ray; `size` is about half its height."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if shape == "sphere":
            return _sphere(rays, size, size)
        if shape == "cube":
            return _cube(rays, 0.85 * size)
        if shape == "cylinder":
            radius, top = 0.8 * size, 1.8 * size
            return _nearest(_tube(rays, radius, 0, top), _disc(rays, radius, top))
        assert shape == "pill", shape
        radius, top = 0.55 * size, 2.1 * size
        ends = _nearest(_sphere(rays, radius, radius), _sphere(rays, radius, top - radius))
        return _nearest(_tube(rays, radius, radius, top - radius), ends)


def _nearest(first: Hits, second: Hits) -> Hits:
    is_first = first.distance <= second.distance
    return Hits(
        np.where(is_first, first.distance, second.distance),
        np.where(is_first[:, None], first.normal, second.normal),
    )


def _hits(rays: Rays, distance: Array, valid: npt.NDArray[np.bool_], normal: Array) -> Hits:
    return Hits(np.where(valid & (distance > NEAR), distance, np.inf), normal)


def _sphere(rays: Rays, radius: float, height: float) -> Hits:
    centre = np.array([0.0, height, 0.0])
    distance = _entry(rays.origins - centre, rays.directions, radius)
    point = rays.origins + distance[:, None] * rays.directions
    return _hits(rays, distance, np.isfinite(distance), (point - centre) / radius)


def _tube(rays: Rays, radius: float, low: float, high: float) -> Hits:
    """The mantle of an upright cylinder."""
    flat = np.array([1.0, 0.0, 1.0])
    distance = _entry(rays.origins * flat, rays.directions * flat, radius)
    point = rays.origins + distance[:, None] * rays.directions
    valid = np.isfinite(distance) & (point[:, 1] >= low) & (point[:, 1] <= high)
    return _hits(rays, distance, valid, point * flat / radius)


def _disc(rays: Rays, radius: float, height: float) -> Hits:
    distance = (height - rays.origins[:, 1]) / rays.directions[:, 1]
    point = rays.origins + distance[:, None] * rays.directions
    valid = point[:, 0] ** 2 + point[:, 2] ** 2 <= radius**2
    return _hits(rays, distance, valid, np.broadcast_to([0.0, 1.0, 0.0], point.shape))


def _cube(rays: Rays, half: float) -> Hits:
    centre = np.array([0.0, half, 0.0])
    first = (centre - half - rays.origins) / rays.directions  # (N, 3)
    second = (centre + half - rays.origins) / rays.directions
    entries = np.minimum(first, second)
    distance, leaves = entries.max(axis=1), np.maximum(first, second).min(axis=1)
    face = np.eye(3)[entries.argmax(axis=1)]
    return _hits(rays, distance, distance <= leaves, -np.sign(rays.directions) * face)


def _entry(origins: Array, directions: Array, radius: float) -> Array:
    """Where each ray enters the sphere (or the cylinder, seen along its axis) around 0."""
    a = (directions**2).sum(axis=1)
    b = (origins * directions).sum(axis=1)
    c = (origins**2).sum(axis=1) - radius**2
    entry: Array = (-b - np.sqrt(b * b - a * c)) / a  # not a number where it misses
    return entry
