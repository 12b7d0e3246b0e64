"""Outlines of flat shapes: polygons within the unit circle around the origin, y pointing down."""

from __future__ import annotations

import numpy as np


def _circle(radius: float = 1.0, start: float = 0.0, stop: float = 2 * np.pi) -> np.ndarray:
    angles = np.linspace(start, stop, 40)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _regular(corners: int, first: float = -np.pi / 2) -> np.ndarray:
    angles = first + 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star() -> np.ndarray:
    return _regular(10) * np.where(np.arange(10) % 2 == 0, 1.0, 0.42)[:, None]


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 40)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y], axis=1) / 17


def _cross(arm: float = 0.3) -> np.ndarray:
    a, b = arm, 0.92
    half = np.array([(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)])
    return np.concatenate([half, -half])


def _ring() -> np.ndarray:
    return np.concatenate([_circle(1.0), _circle(0.55)])  # even-odd filling leaves the hole


def _crescent() -> np.ndarray:
    outer = _circle(1.0, 0.25 * np.pi, 1.75 * np.pi)
    inner = _circle(0.75, 1.65 * np.pi, 0.35 * np.pi) + np.array([0.38, 0.0])
    return np.concatenate([outer, inner])


def _arrow() -> np.ndarray:
    half = np.array([(0, -1), (0.75, -0.15), (0.28, -0.15), (0.28, 0.95)])
    return np.concatenate([half, half[:0:-1] * np.array([-1, 1])])


OUTLINES: dict[str, np.ndarray] = {
    "circle": _circle(0.95),
    "square": _regular(4, -np.pi / 4) * 1.15,
    "triangle": _regular(3) * 1.1,
    "star": _star() * 1.1,
    "heart": _heart(),
    "cross": _cross(),
    "ring": _ring(),
    "crescent": _crescent(),
    "arrow": _arrow(),
    "diamond": np.array([(0, -1.1), (0.62, 0), (0, 1.1), (-0.62, 0)]),
    "semicircle": _circle(1.05, np.pi, 2 * np.pi) + np.array([0, 0.5]),
    "hexagon": _regular(6),
}
