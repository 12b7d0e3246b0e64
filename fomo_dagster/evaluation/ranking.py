"""Where the right items stand in each query's list: the core of accuracy and recall.

In classification, the queries are images and the items are classes. In retrieval they are images
and captions, either way round.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    blocks = []
    positions = np.arange(len(items))
    transposed = items.astype(np.float64).T  # (D, M)
    rows = max(1, block_elements // len(items))
    for start in range(0, len(queries), rows):
        block = slice(start, start + rows)
        similarities = (queries[block].astype(np.float64) @ transposed).astype(np.float32)  # (b, M)
        relevant = query_owners[block, None] == item_owners[None]  # (b, M)
        # argmax gives the first of equals, which is the one that stands first in the list.
        own = np.where(relevant, similarities, -np.inf).argmax(axis=1)[:, None]  # (b, 1)
        right = np.take_along_axis(similarities, own, axis=1)
        before = (similarities > right) | ((similarities == right) & (positions < own))
        first = similarities.argmax(axis=1)
        best = np.take_along_axis(similarities, first[:, None], axis=1)
        log_total, concentration = np.zeros(len(first)), np.zeros(len(first))
        if scale is not None:
            below = np.exp(np.float32(scale) * (similarities - best))  # at most 1
            sums = below.sum(axis=1, dtype=np.float64)
            log_total = scale * best[:, 0].astype(np.float64) + np.log(sums)
            concentration = np.square(below).sum(axis=1, dtype=np.float64) / sums**2
        best_wrong = np.where(relevant, -np.inf, similarities).max(axis=1)
        blocks.append(
            Ranking(
                ranks=before.sum(axis=1),
                first=first,
                right=right[:, 0],
                best=best[:, 0],
                best_wrong=best_wrong,
                log_total=log_total,
                concentration=concentration,
            )
        )
    return joined(blocks)


def joined(parts: Sequence[Ranking]) -> Ranking:
    """The queries of all parts, one part after the other."""
    return Ranking(
        *(
            np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(Ranking)
        )
    )
