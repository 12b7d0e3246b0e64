"""Samples that stand for others, by their features: orders of which every beginning is a choice.

Both orders are greedy, so the first k do not depend on how many are asked for. Products of matrices
differ in their last bits between machines. What lies within `TIE` of the best therefore counts as
equal to it, and the sample that comes first is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

TIE = 1e-9
"""Of squared distances between features of length 1."""


def herding(features: npt.NDArray[np.float32], most: int) -> list[int]:
    """Always the sample that brings the mean of those chosen nearest to the mean of all (iCaRL,
    arXiv 1611.07725, algorithm 4):

        p_k = argmin_x ‖μ - (φ(x) + Σ_{j<k} φ(p_j)) / k‖

    features: (N, D), one concept's, L2-normalised. Gives min(`most`, N) places, the first first.
    The paper does not say whether a sample can be chosen twice; here it cannot. μ is the mean as
    it is, not normalised again.
    """
    points = features.astype(np.float64)
    mean = points.mean(axis=0)
    squares = np.square(points).sum(axis=1)  # (N,)
    left = np.ones(len(points), dtype=bool)
    missing = mean.copy()  # (D,): k·μ - Σ_{j<k} φ(p_j)
    chosen: list[int] = []
    while len(chosen) < min(most, len(points)):
        # k² times the paper's squared distance, without what it has of every sample alike.
        place = _first_least(squares - 2 * (points @ missing), left)
        chosen.append(place)
        left[place] = False
        missing += mean - points[place]
    return chosen


def k_centre(features: npt.NDArray[np.float32], most: int) -> list[int]:
    """Always the sample that is farthest from all chosen ones (greedy k-centre: Sener and Savarese,
    arXiv 1708.00489, algorithm 1).

    features: (N, D), one concept's, L2-normalised. Gives min(`most`, N) places, the first first.
    The paper starts from samples that are there; here it is the one nearest to the mean of all.
    """
    points = features.astype(np.float64)
    squares = np.square(points).sum(axis=1)  # (N,)
    left = np.ones(len(points), dtype=bool)
    far = 2 * (points @ points.mean(axis=0)) - squares  # (N,): most for the nearest to the mean
    chosen: list[int] = []
    while len(chosen) < min(most, len(points)):
        place = _first_least(-far, left)
        chosen.append(place)
        left[place] = False
        distances = squares + squares[place] - 2 * (points @ points[place])
        far = distances if len(chosen) == 1 else np.minimum(far, distances)
    return chosen


def _first_least(values: Floats, left: npt.NDArray[np.bool_]) -> int:
    """The first place, among those left, of the least value or one that is as good as it."""
    values = np.where(left, values, np.inf)
    return int(np.flatnonzero(values <= values.min() + TIE)[0])


ORDERS: Mapping[str, Callable[[npt.NDArray[np.float32], int], list[int]]] = {
    "herding": herding,
    "k_centre": k_centre,
}
"""By the name that a buffer's selection has."""
