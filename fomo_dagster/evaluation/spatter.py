"""Spatter, a corruption of images: drops of water, or at the higher severities stains of mud
(Hendrycks and Dietterich 2019, arXiv 1903.12261).

The authors' code takes OpenCV's filters; these are written here by their definitions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate, gaussian_filter, label, uniform_filter

Floats = npt.NDArray[np.float64]
Parameters = tuple[float, float, float, float, float, bool]
"""Mean and deviation of the liquid, its blur, from where on it is one, its amount, whether it is
mud."""

PARAMETERS: tuple[Parameters, ...] = (
    (0.65, 0.3, 4, 0.69, 0.6, False),
    (0.65, 0.3, 3, 0.68, 0.6, False),
    (0.65, 0.3, 2, 0.68, 0.5, False),
    (0.65, 0.3, 1, 0.65, 1.5, True),
    (0.67, 0.4, 1, 0.65, 1.5, True),
)
WATER, MUD = (np.array(colour) / 255 for colour in ((175, 238, 238), (63, 42, 20)))
_WEAK, _STRONG = 50, 150  # gradients of edges
_FARTHEST = 20  # pixels
_LIGHT = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])  # from the upper left
_SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
_AROUND = np.ones((3, 3), dtype=int)
_STEEP = np.tan(np.pi / 8)
_LENGTHS = {1: 1.0, 2: 1.4, 5: 2.1969}  # by their exact squares
_STEPS = {
    (down, right): _LENGTHS[down**2 + right**2]
    for down in range(-2, 3) for right in range(-2, 3) if down**2 + right**2 in _LENGTHS
}  # fmt: skip
"""Rows and columns → the length of the step."""


def spatter(x: Floats, random: np.random.Generator, parameters: Parameters) -> Floats:
    """x: (H, W, 3), from 0 to 1; likewise what is returned, before it is cut to these."""
    mean, deviation, blur, least, amount, is_mud = parameters
    liquid = random.normal(size=x.shape[:2], loc=mean, scale=deviation)
    liquid = gaussian_filter(liquid, blur, mode="nearest")
    liquid[liquid < least] = 0
    if is_mud:
        share = gaussian_filter((liquid > least).astype(np.float64), amount, mode="nearest")
        share[share < 0.8] = 0
        return np.asarray(x * (1 - share[..., None]) + MUD * share[..., None])
    # Negative values cannot be left, and values above 1 wrap around, as where they become bytes.
    levels = np.floor(liquid * 255).astype(np.int64) % 256
    drops = levels * _lit(levels)
    most = drops.max()
    share = drops / most * amount if most > 0 else np.zeros_like(drops)
    return np.asarray(x + share[..., None] * WATER)


def _lit(levels: npt.NDArray[np.int64]) -> Floats:
    """How light drops are, (H, W) from 0 to 255: the slope of the distance to their edges."""
    far = distances(edges(levels))
    smooth = np.floor(uniform_filter(far, 3, mode="mirror") + 1e-6).astype(np.int64)
    lit = np.clip(correlate(equalised(smooth), _LIGHT, mode="mirror"), 0, 255)
    return np.asarray(np.round(uniform_filter(lit.astype(np.float64), 3, mode="mirror")))


def distances(places: npt.NDArray[np.bool_]) -> Floats:
    """How far each pixel is from the nearest place, to _FARTHEST: by steps to the pixels beside,
    diagonally, and as a knight's, of the lengths that Borgefors (1986) gives a mask of 5 × 5."""
    height, width = places.shape
    found = np.pad(np.where(places, 0.0, _FARTHEST), 2, constant_values=_FARTHEST)
    inner = found[2:-2, 2:-2]
    for _ in range(_FARTHEST):
        before = inner.copy()
        for (down, right), length in _STEPS.items():
            beside = found[2 + down : 2 + down + height, 2 + right : 2 + right + width]
            np.minimum(inner, beside + length, out=inner)
        if np.array_equal(before, inner):
            break
    return np.asarray(inner)


def equalised(levels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Levels from 0 to 255 of which each is as frequent as it can be made; the lowest becomes 0."""
    counts = np.bincount(levels.ravel(), minlength=256)
    lowest = int(levels.min())
    others = levels.size - counts[lowest]
    if not others:
        return levels
    counts[lowest] = 0
    return np.asarray(np.round(np.cumsum(counts) * (255 / others)).astype(np.int64)[levels])


def edges(levels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Canny's edges (1986): the ridges of the gradient that are strong, and the weak ones that hang
    together with these."""
    across = correlate(levels, _SOBEL, mode="nearest")
    down = correlate(levels, _SOBEL.T, mode="nearest")
    gradient = np.abs(across) + np.abs(down)
    padded = np.pad(gradient, 1)

    def beside(dy: int, dx: int) -> npt.NDArray[np.int64]:
        height, width = levels.shape
        return padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]

    is_level = np.abs(down) < _STEEP * np.abs(across)
    is_upright = np.abs(down) > np.abs(across) / _STEEP
    falls = (across < 0) != (down < 0)
    ridge = np.where(
        is_level, (gradient > beside(0, -1)) & (gradient >= beside(0, 1)),
        np.where(
            is_upright, (gradient > beside(-1, 0)) & (gradient >= beside(1, 0)),
            np.where(
                falls, (gradient > beside(-1, 1)) & (gradient > beside(1, -1)),
                (gradient > beside(-1, -1)) & (gradient > beside(1, 1)),
            ),
        ),
    )  # fmt: skip
    pieces, _ = label(ridge & (gradient > _WEAK), structure=_AROUND)
    strong = np.unique(pieces[ridge & (gradient > _STRONG)])
    return np.isin(pieces, strong[strong > 0])
