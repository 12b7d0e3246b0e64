"""Ranks against sorting, and that ties and blocks cannot change them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.evaluation.ranking import Floats, Integers, first_relevant_ranks


def ranks_by_sorting(
    queries: Floats, items: Floats, query_owners: Integers, item_owners: Integers
) -> list[int]:
    """Sort each query's items by falling similarity, equals in their order, and look."""
    ranks = []
    for query, owner in zip(queries.tolist(), query_owners.tolist(), strict=True):
        similarity = [
            sum(a * b for a, b in zip(query, item, strict=True)) for item in items.tolist()
        ]
        ranked = sorted(range(len(items)), key=lambda item: -similarity[item])
        ranks.append([item_owners[item] for item in ranked].index(owner))
    return ranks


@given(
    seed=st.integers(0, 2**32),
    queries=st.integers(1, 12),
    items=st.integers(1, 15),
    owners=st.integers(1, 6),
    block=st.integers(1, 60),
)
def test_ranks_are_those_of_a_stable_sort_whatever_the_block(
    seed: int, queries: int, items: int, owners: int, block: int
) -> None:
    rng = np.random.default_rng(seed)
    # Small whole numbers: products are exact and many similarities are equal.
    query_features = rng.integers(-2, 3, (queries, 3)).astype(np.float32)
    item_features = rng.integers(-2, 3, (items, 3)).astype(np.float32)
    item_owners = rng.integers(0, owners, items)
    query_owners = rng.choice(item_owners, queries)
    ranks = first_relevant_ranks(query_features, item_features, query_owners, item_owners, block)
    assert ranks.tolist() == ranks_by_sorting(
        query_features, item_features, query_owners, item_owners
    )


def test_equal_items_tie_exactly_wherever_they_stand() -> None:
    # 97 copies of a vector among others: matrix products treat the columns of a block and its
    # edges differently, so plain fp32 sums of the same numbers can differ in their last bits.
    rng = np.random.default_rng(0)
    items = rng.normal(size=(397, 301)).astype(np.float32)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    copies = np.sort(rng.choice(397, 97, replace=False))
    items[copies] = items[copies[0]]
    queries = rng.normal(size=(97, 301)).astype(np.float32)
    ranks = first_relevant_ranks(queries, items, copies, np.arange(397))
    first = first_relevant_ranks(queries, items, np.full(97, copies[0]), np.arange(397))
    assert (ranks - first).tolist() == list(range(97))
