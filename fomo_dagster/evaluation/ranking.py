"""The rank of the first relevant item for each query: the core of accuracy and recall.

In classification, the queries are images and the items are classes. In retrieval they are images
and captions, either way round.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BLOCK_ELEMENTS = 2**21  # similarities held at once: some 50 MB with what is derived from them

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def first_relevant_ranks(
    queries: Floats,
    items: Floats,
    query_owners: Integers,
    item_owners: Integers,
    block_elements: int = BLOCK_ELEMENTS,
) -> Integers:
    """The number of items before the first relevant one in each query's list: (Q,), from 0.

    queries: (Q, D), items: (M, D); the similarity is their inner product. An item is relevant for a
    query of the same owner (`query_owners`: (Q,), `item_owners`: (M,)); every query must have one.
    Among equal similarities, the item that comes first in `items` is first in the list.

    Products are summed in fp64 and rounded to fp32, so that equal items tie exactly, whatever the
    block they fall in and the order in which a processor adds.
    """
    ranks = np.empty(len(queries), dtype=np.int64)
    positions = np.arange(len(items))
    transposed = items.astype(np.float64).T  # (D, M)
    rows = max(1, block_elements // len(items))
    for start in range(0, len(queries), rows):
        block = slice(start, start + rows)
        similarities = (queries[block].astype(np.float64) @ transposed).astype(np.float32)  # (b, M)
        relevant = query_owners[block, None] == item_owners[None]  # (b, M)
        # argmax gives the first of equals, which is the one that stands first in the list.
        best = np.where(relevant, similarities, -np.inf).argmax(axis=1)[:, None]  # (b, 1)
        own = np.take_along_axis(similarities, best, axis=1)
        before = (similarities > own) | ((similarities == own) & (positions < best))
        ranks[block] = before.sum(axis=1)
    return ranks
