"""The path of the greatest similarity, against the definition step by step."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.streams import similarity
from fomo_dagster.streams.similarity import most_similar_path


def greedy(embeddings, start):
    """By definition: always to the most similar of what is left, the first of equals."""
    left = [row for row in range(len(embeddings)) if row != start]
    path = [start]
    while left:
        path.append(max(left, key=lambda row: embeddings[row] @ embeddings[path[-1]]))
        left.remove(path[-1])
    return path


def total(embeddings, path):
    return math.fsum(float(embeddings[a] @ embeddings[b]) for a, b in pairwise(path))


def random_embeddings(count, seed):
    drawn = np.random.default_rng(seed).normal(size=(count, 12)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.mark.parametrize("neighbours", [1, 3, 128])
@pytest.mark.parametrize("rows", [7, 512])
@pytest.mark.parametrize("count", [1, 2, 3, 90])
def test_it_is_the_greedy_path(monkeypatch, neighbours, rows, count):
    monkeypatch.setattr(similarity, "NEIGHBOURS", neighbours)
    monkeypatch.setattr(similarity, "ROWS", rows)
    embeddings = random_embeddings(count, 1)
    for start in (0, count - 1):
        found = most_similar_path(embeddings, [start])
        assert found.places == greedy(embeddings, start)
        expected = [embeddings[a] @ embeddings[b] for a, b in pairwise(found.places)]
        assert np.allclose(found.similarities, expected)


@given(rows=st.lists(st.tuples(*[st.integers(-2, 2)] * 2), min_size=1, max_size=14), data=st.data())
def test_of_equal_ones_the_first_is_taken(rows, data):
    """Small whole numbers, so that equal similarities are equal to the last bit."""
    embeddings = np.array(rows, dtype=np.float32)
    start = data.draw(st.integers(0, len(rows) - 1))
    neighbours, similarity.NEIGHBOURS = similarity.NEIGHBOURS, data.draw(st.integers(1, 5))
    try:
        assert most_similar_path(embeddings, [start]).places == greedy(embeddings, start)
    finally:
        similarity.NEIGHBOURS = neighbours


def test_the_best_of_several_starts_is_kept():
    embeddings = random_embeddings(40, 2)
    starts = [4, 31, 0, 17]
    found = most_similar_path(embeddings, starts)
    best = max(total(embeddings, greedy(embeddings, start)) for start in starts)
    assert found.total == pytest.approx(best)
    assert found.places[0] in starts
    assert len({round(total(embeddings, greedy(embeddings, s)), 6) for s in starts}) > 1
