"""Where the right items stand in each query's list: the core of accuracy and recall.

In classification, the queries are images and the items are classes. In retrieval they are images
and captions, either way round; see `ranking_both_ways.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

BLOCK_ELEMENTS = 2**21  # similarities held at once: some 50 MB with what is derived from them

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ranking:
    """What each of Q queries found among M items; all are (Q,).

    ranks: the number of items before the first relevant one, from 0; first: the item that heads the
    list; right: the similarity of the first relevant item; best: that of `first`; best_wrong: the
    highest of an item that is not relevant, -inf where all are. log_total: log Σ exp(scale · s)
    over the similarities s of all items, concentration: Σ p² of the softmax p = exp(scale · s) /
    exp(log_total); both 0 if there is no scale.
    """

    ranks: Integers
    first: Integers
    right: Floats
    best: Floats
    best_wrong: Floats
    log_total: npt.NDArray[np.float64]
    concentration: npt.NDArray[np.float64]


def ranking(
    queries: Floats,
    items: Floats,
    query_owners: Integers,
    item_owners: Integers,
    scale: float | None = None,
    block_elements: int = BLOCK_ELEMENTS,
) -> Ranking:
    """Each query's list of items, by falling similarity.

    queries: (Q, D), items: (M, D); the similarity is their inner product. An item is relevant for a
    query of the same owner (`query_owners`: (Q,), `item_owners`: (M,)); every query must have one.
    Among equal similarities, the item that comes first in `items` is first in the list.

    Products are summed in fp64 and rounded to fp32, so that equal items tie exactly, whatever the
    block they fall in and the order in which a processor adds.
    """
    own = Own(item_owners)
    return joined(
        [
            _of_rows(similarities, own, query_owners[block], scale)
            for block, similarities in _blocks(queries, items, block_elements)
        ]
    )


def _blocks(queries: Floats, items: Floats, block_elements: int) -> Iterator[tuple[slice, Floats]]:
    """Slices of the queries, with their similarities to all items."""
    transposed = items.astype(np.float64).T  # (D, M)
    rows = max(1, block_elements // len(items))
    for start in range(0, len(queries), rows):
        block = slice(start, start + rows)
        yield block, (queries[block].astype(np.float64) @ transposed).astype(np.float32)  # (b, M)


class Own:
    """Finds the items of queries by their owners."""

    def __init__(self, item_owners: Integers) -> None:
        self._order = np.argsort(item_owners, kind="stable")
        self._owners = item_owners[self._order]

    def of(self, query_owners: Integers) -> tuple[Integers, Integers, Integers]:
        """Pairs of a query's row and an item of its own, by row and place; and where each row's
        pairs begin."""
        begin = np.searchsorted(self._owners, query_owners)
        counts = np.searchsorted(self._owners, query_owners, "right") - begin
        starts = np.cumsum(counts) - counts
        rows = np.repeat(np.arange(len(query_owners)), counts)
        return rows, self._order[np.arange(len(rows)) + (begin - starts)[rows]], starts


def _of_rows(
    similarities: Floats, own: Own, query_owners: Integers, scale: float | None
) -> Ranking:
    """The ranking of a block, (b, M). What is relevant is -inf in it afterwards."""
    queries, items = similarities.shape
    first = similarities.argmax(axis=1)  # of equals the one that stands first in the list
    best = similarities[np.arange(queries), first]
    log_total, concentration = np.zeros((2, queries))
    if scale is not None:
        below = np.exp(np.float32(scale) * (similarities - best[:, None]))  # at most 1
        sums = below.sum(axis=1, dtype=np.float64)
        log_total = scale * best.astype(np.float64) + np.log(sums)
        concentration = np.square(below).sum(axis=1, dtype=np.float64) / sums**2
    rows, columns, starts = own.of(query_owners)
    relevant = similarities[rows, columns]
    right = np.maximum.reduceat(relevant, starts)
    place = np.minimum.reduceat(np.where(relevant == right[rows], columns, items), starts)
    similarities[rows, columns] = -np.inf
    ranks = np.count_nonzero(similarities > right[:, None], axis=1)
    tied, at = np.nonzero(similarities == right[:, None])
    ranks += np.bincount(tied[at < place[tied]], minlength=queries)
    best_wrong = similarities.max(axis=1)
    return Ranking(ranks, first, right, best, best_wrong, log_total, concentration)


def joined(parts: Sequence[Ranking]) -> Ranking:
    """The queries of all parts, one part after the other."""
    return Ranking(
        *(
            np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(Ranking)
        )
    )
