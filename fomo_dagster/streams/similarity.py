"""The order `similarity`: a path from each concept to the most similar one that is left.

This is the greedy nearest-neighbour path of FoMo-in-Flux (arXiv 2408.14471) through L2-normalised
text embeddings. Making the embeddings is not covered. The path is exact, without a matrix of all
similarities: a block of rows at a time gives each concept's nearest neighbours, which decide nearly
every step. Where all of these have been passed, the step searches what is left.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

NEIGHBOURS = 128
ROWS = 512  # of a block of similarities: 512 × 18,381 in single precision are 38 MB


@dataclass(frozen=True)
class Path:
    """places: (N,) rows of the embeddings in the order of the path; similarities: (N - 1,), of each
    place but the first to the one before."""

    places: list[int]
    similarities: list[float]

    @property
    def total(self) -> float:
        """The sum of all similarities."""
        return math.fsum(self.similarities)


def most_similar_path(embeddings: Floats, starts: Sequence[int]) -> Path:
    """The greedy path of the greatest total similarity among those from each of `starts`.

    embeddings: (N, D), L2-normalised, N ≥ 1. Every step goes to the row with the greatest inner
    product that is left, the first of equal ones; of equal totals the first start's path is taken.
    """
    neighbours = _nearest_neighbours(embeddings, min(NEIGHBOURS, len(embeddings) - 1))
    paths = (_path(embeddings, neighbours, start) for start in starts)
    return max(paths, key=lambda path: path.total)  # the first of equals


def _path(embeddings: Floats, neighbours: Places, start: int) -> Path:
    left = np.ones(len(embeddings), dtype=bool)
    remaining = np.arange(len(embeddings))
    rows = embeddings  # of `remaining`, some of which may have been passed since
    places = [start]
    left[start] = False
    for _ in range(len(embeddings) - 1):
        at = places[-1]
        near = neighbours[at]
        ahead = near[left[near]]
        if len(ahead):
            step = int(ahead[0])
        else:
            if 2 * np.count_nonzero(left) < len(remaining):
                remaining = np.flatnonzero(left)
                rows = embeddings[remaining]
            similarities = rows @ embeddings[at]
            similarities[~left[remaining]] = -np.inf
            step = int(remaining[int(similarities.argmax())])
        places.append(step)
        left[step] = False
    return Path(places, list(_similarities(embeddings, places)))


def _similarities(embeddings: Floats, places: Sequence[int]) -> Iterator[float]:
    for before, after in pairwise(places):
        yield float(embeddings[before] @ embeddings[after])


def _nearest_neighbours(embeddings: Floats, count: int) -> Places:
    """(N, count) rows by falling similarity to each row, itself left out; the first of equals."""
    neighbours = np.empty((len(embeddings), count), dtype=np.int64)
    for first in range(0, len(embeddings) if count else 0, ROWS):
        block = embeddings[first : first + ROWS] @ embeddings.T  # (ROWS, N)
        own = np.arange(len(block))
        block[own, first + own] = -np.inf
        for row, similarities in enumerate(block):
            # All that equal the last of the nearest are ranked with them, since a partition alone
            # would keep any of the equal ones instead of the first.
            least = np.partition(similarities, -count)[-count]
            near = np.flatnonzero(similarities >= least)
            ranked = near[np.argsort(-similarities[near], kind="stable")]
            neighbours[first + row] = ranked[:count]
    return neighbours
