"""Ranks against sorting, and that ties and blocks cannot change them."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from fomo_dagster.evaluation.ranking import (
    Floats,
    Integers,
    Ranking,
    ranking,
)
from fomo_dagster.evaluation.ranking_both_ways import ranking_both_ways


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
    found = ranking(
        query_features, item_features, query_owners, item_owners, scale=0.7, block_elements=block
    )
    assert found.ranks.tolist() == ranks_by_sorting(
        query_features, item_features, query_owners, item_owners
    )
    similarities = query_features.astype(np.float64) @ item_features.T.astype(np.float64)
    own = query_owners[:, None] == item_owners
    assert found.first.tolist() == similarities.argmax(axis=1).tolist()
    assert found.best.tolist() == similarities.max(axis=1).tolist()
    assert found.right.tolist() == np.where(own, similarities, -np.inf).max(axis=1).tolist()
    assert found.best_wrong.tolist() == np.where(own, -np.inf, similarities).max(axis=1).tolist()
    assert found.log_total == pytest.approx(logsumexp(0.7 * similarities, axis=1), abs=1e-6)


@pytest.mark.parametrize("count", [7, 30, 97, 398])
def test_equal_items_tie_exactly_wherever_they_stand(count: int) -> None:
    # A matrix product treats the columns of a block and those at its edge differently: without
    # rounding, its sums over the same numbers differ in their last bits, in fp32 and in fp64.
    rng = np.random.default_rng(0)
    items = np.repeat(rng.normal(size=(1, 301)).astype(np.float32), count, axis=0)
    queries = rng.normal(size=(97, 301)).astype(np.float32)
    owners = rng.integers(0, count, 97)
    for rows in (1, 2, 5, 97):
        found = ranking(queries, items, owners, np.arange(count), None, rows * count)
        assert found.ranks.tolist() == owners.tolist()


@given(
    seed=st.integers(0, 2**32),
    images=st.integers(1, 12),
    captions=st.integers(0, 15),
    block=st.integers(1, 200),
)
def test_both_ways_at_once_are_either_way_alone(
    seed: int, images: int, captions: int, block: int
) -> None:
    rng = np.random.default_rng(seed)
    owners = rng.permutation([*range(images), *rng.integers(0, images, captions)])
    of_images = rng.integers(-2, 3, (images, 3)).astype(np.float32)  # many are equal
    of_captions = rng.integers(-2, 3, (len(owners), 3)).astype(np.float32)
    assert_as_either_way_alone(of_images, of_captions, owners, block)


@pytest.mark.parametrize("nearness", [1e-3, 1e-6, 1e-7, 1e-8, 0.0])
@pytest.mark.parametrize("block", [100, 900, 2**21])
def test_both_ways_tell_apart_what_fp32_products_cannot(nearness: float, block: int) -> None:
    # From a few that are too near, which are looked at one by one, to all, and to exact ties.
    rng = np.random.default_rng(0)
    owners = rng.permutation([*range(40), *rng.integers(0, 40, 90)])
    of_images = rng.normal(size=(40, 65)) + 0.3
    of_images[::3] = of_images[0] + nearness * rng.normal(size=(14, 65))
    of_captions = of_images[owners] + 0.1 * rng.normal(size=(130, 65))
    of_captions[::2] = of_captions[0] + nearness * rng.normal(size=(65, 65))
    images, captions = unit(of_images), unit(of_captions)
    assert_as_either_way_alone(images, captions, owners, block)
    assert_as_either_way_alone(100 * images, captions, owners, block)


def test_both_ways_of_a_collapsed_model_are_either_way_alone() -> None:
    rng = np.random.default_rng(0)
    owners = np.repeat(np.arange(50), 3)
    images = unit(1 + 1e-7 * rng.normal(size=(50, 33)))
    captions = unit(1 + 1e-7 * rng.normal(size=(150, 33)))
    assert_as_either_way_alone(images, captions, owners, 2000)


def test_both_ways_never_hold_all_similarities() -> None:
    rng = np.random.default_rng(0)
    images, captions = unit(rng.normal(size=(1000, 8))), unit(rng.normal(size=(5000, 8)))
    owners = np.repeat(np.arange(1000), 5)
    tracemalloc.start()
    try:
        ranking_both_ways(images, captions, owners, block_elements=2**16)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1000 * 5000 * 4 / 5


def unit(rows: npt.NDArray[np.float64]) -> Floats:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def assert_as_either_way_alone(
    images: Floats, captions: Floats, owners: Integers, block: int
) -> None:
    own = np.arange(len(images))
    alone = ranking(images, captions, own, owners), ranking(captions, images, owners, own)
    found = ranking_both_ways(images, captions, owners, block)
    for side, expected in zip(found, alone, strict=True):
        for field in fields(Ranking):
            name = field.name
            assert getattr(side, name).tolist() == getattr(expected, name).tolist(), name
