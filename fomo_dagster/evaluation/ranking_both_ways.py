"""The `ranking` of images among captions and of captions among images, from one product of the two.

The similarities are those of `ranking`, sums in fp64 that are rounded to fp32, and so are the
results. But most of them decide nothing: whether one is above another can be told from a product in
fp32, whose error is bounded. Only those that are too near to tell are computed in fp64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from fomo_dagster.evaluation.ranking import BLOCK_ELEMENTS, Floats, Integers, Own, Ranking

TILES_WIDER = 8  # captions by images of a tile: what the product reads again fits into a cache
MOST_DOUBTS = 128  # one similarity in as many: a product in fp64 takes less time from there on
PAIRS_AT_ONCE = 4096


def ranking_both_ways(
    images: Floats, captions: Floats, owners: Integers, block_elements: int = BLOCK_ELEMENTS
) -> tuple[Ranking, Ranking]:
    """The `ranking` of N images among their M captions, and of the captions among the images.

    images: (N, D); captions: (M, D); owners: (M,), the image of each; every image must have one.
    """
    right = _similarities(images, captions, owners, np.arange(len(captions)))  # (M,)
    pairs, columns, starts = Own(owners).of(np.arange(len(images)))
    highest = np.maximum.reduceat(right[columns], starts)  # (N,)
    is_highest = right[columns] == highest[pairs]
    place = np.minimum.reduceat(np.where(is_highest, columns, len(captions)), starts)
    of_images, of_captions = _Side(highest, place), _Side(right, owners)
    error = _error(images, captions)
    for rows, items in _tiles(len(images), len(captions), block_elements):
        own = _own_of_tile(owners[items] - rows.start, rows.stop - rows.start)
        tile = images[rows] @ captions[items].T  # (b, m)
        tile[own] = -np.inf
        by_image = of_images.doubts(tile, rows, error)
        by_caption = of_captions.doubts(tile.T, items, error)[::-1]
        here, there = (np.concatenate(both) for both in zip(by_image, by_caption, strict=True))
        if len(here) * MOST_DOUBTS > tile.size:
            tile[:] = images[rows].astype(np.float64) @ captions[items].astype(np.float64).T
            tile[own] = -np.inf
        else:
            tile[here, there] = _similarities(
                images, captions, here + rows.start, there + items.start
            )
        of_images.take(tile, rows, items)
        of_captions.take(tile.T, items, rows)
    return of_images.ranking(), of_captions.ranking()


class _Side:
    """What Q queries found so far. right: (Q,), the similarity of the first relevant item, and its
    place: (Q,). Tiles have queries as rows, all similarities to relevant items being -inf."""

    def __init__(self, right: Floats, place: Integers) -> None:
        self._right, self._place = right, place
        self._ranks = np.zeros(len(right), np.int64)
        self._best_wrong = np.full(len(right), -np.inf, np.float32)
        self._first_wrong = np.zeros(len(right), np.int64)
        self._open = np.zeros(0, np.int64)  # rows of the present tile that are not counted yet

    def doubts(self, tile: Floats, queries: slice, error: np.float32) -> tuple[Integers, Integers]:
        """Rows and columns of what has to be known exactly. What else is above the right one is
        counted."""
        right = self._right[queries]
        surely = np.count_nonzero(tile > (right + error)[:, None], axis=1)
        perhaps = np.count_nonzero(tile >= (right - error)[:, None], axis=1)
        highest = tile.max(axis=1)
        is_open = (surely != perhaps) | (highest >= self._best_wrong[queries] - error)
        self._ranks[queries] += np.where(is_open, 0, surely)
        self._open = np.flatnonzero(is_open)
        part, right = tile[self._open], right[self._open, None]
        near = (part >= right - error) & (part <= right + error)
        near |= part >= highest[self._open, None] - 2 * error
        near &= part > -np.inf
        rows, columns = np.nonzero(near)
        return self._open[rows], columns

    def take(self, tile: Floats, queries: slice, items: slice) -> None:
        """Count what is left of a tile, in which the doubts are exact now."""
        part, rows = tile[self._open], self._open + queries.start
        right, place = self._right[rows], self._place[rows] - items.start
        ranks = np.count_nonzero(part > right[:, None], axis=1)
        tied, at = np.nonzero(part == right[:, None])
        ranks += np.bincount(tied[at < place[tied]], minlength=len(rows))
        self._ranks[rows] += ranks
        highest = part.argmax(axis=1)
        found, first = part[np.arange(len(rows)), highest], highest + items.start
        best, before = self._best_wrong[rows], self._first_wrong[rows]
        self._first_wrong[rows] = np.where(found > best, first, before)
        self._best_wrong[rows] = np.maximum(best, found)

    def ranking(self) -> Ranking:
        right, best_wrong = self._right, self._best_wrong
        first = np.where(best_wrong > right, self._first_wrong, self._place)
        tied = best_wrong == right
        first[tied] = np.minimum(self._first_wrong, self._place)[tied]
        best, nothing = np.maximum(right, best_wrong), np.zeros(len(right))
        return Ranking(self._ranks, first, right, best, best_wrong, nothing, nothing)


def _similarities(images: Floats, captions: Floats, here: Integers, there: Integers) -> Floats:
    """(P,), as `ranking` rounds them, of P pairs of an image and a caption."""
    found = np.empty(len(here), np.float32)
    for start in range(0, len(here), PAIRS_AT_ONCE):
        block = slice(start, start + PAIRS_AT_ONCE)
        of_images, of_captions = images[here[block]], captions[there[block]]
        found[block] = np.einsum(
            "pd,pd->p", of_captions, of_images, dtype=np.float64, casting="safe"
        )
    return found


def _error(images: Floats, captions: Floats) -> np.float32:
    """How far a product in fp32, or a threshold made of one, may be from the similarity: D
    roundings of a sum in whatever order (Higham 2002, Accuracy and Stability of Numerical
    Algorithms, section 3.1), those of the similarity and the threshold, and one for the norms."""
    squares = [np.einsum("nd,nd->n", rows, rows).max() for rows in (images, captions)]
    longest = math.sqrt(float(squares[0]) * float(squares[1]))
    return np.float32((images.shape[1] + 4) * 2.0**-24 * 1.01 * longest)


def _tiles(images: int, captions: int, elements: int) -> Iterator[tuple[slice, slice]]:
    height = max(1, int((elements / TILES_WIDER) ** 0.5))
    width = max(1, elements // height)
    for top in range(0, images, height):
        for left in range(0, captions, width):
            yield (
                slice(top, min(top + height, images)),
                slice(left, min(left + width, captions)),
            )


def _own_of_tile(rows: Integers, height: int) -> tuple[Integers, Integers]:
    """Where captions meet their images. rows: (m,), of each caption's image, perhaps outside."""
    columns = np.flatnonzero((rows >= 0) & (rows < height))
    return rows[columns], columns
