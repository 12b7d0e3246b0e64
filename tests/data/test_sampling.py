"""Positions of a pool: permutations one after the other, whatever the pieces they are asked in."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.data.sampling import positions, sample_seed
from fomo_dagster.errors import InputError


@given(
    seed=st.integers(0, 5),
    stage=st.integers(0, 5),
    size=st.integers(1, 30),
    start=st.integers(0, 99),
)
def test_no_sample_repeats_before_all_were_drawn(
    seed: int, stage: int, size: int, start: int
) -> None:
    first = -(-start // size)  # the first permutation that lies whole in what is drawn
    drawn = positions(seed, stage, "update", size, start, 4 * size)
    for number in range(first, first + 3):
        part = drawn[number * size - start : (number + 1) * size - start]
        assert sorted(part) == list(range(size))


@given(
    size=st.integers(1, 30),
    start=st.integers(0, 99),
    pieces=st.lists(st.integers(0, 20), max_size=6),
)
def test_positions_do_not_depend_on_the_pieces_they_are_asked_in(
    size: int, start: int, pieces: list[int]
) -> None:
    whole = positions(1, 2, "buffer", size, start, sum(pieces))
    ends = np.cumsum([0, *pieces])
    parts = [
        positions(1, 2, "buffer", size, start + int(end), piece)
        for end, piece in zip(ends[:-1], pieces, strict=True)
    ]
    assert whole.tolist() == [index for part in parts for index in part]


def test_every_permutation_is_equally_likely() -> None:
    rounds = 3000
    drawn = positions(0, 1, "update", 3, 0, 3 * rounds).reshape(rounds, 3)
    counts = Counter(map(tuple, drawn.tolist()))
    expected = rounds / 6
    chi_square = sum(
        (counts[permutation] - expected) ** 2 / expected for permutation in permutations(range(3))
    )
    assert chi_square < 20.5  # exceeded once in a thousand at 5 degrees of freedom


def test_seed_stage_pool_and_round_each_change_the_order() -> None:
    orders = [
        positions(0, 1, "update", 50, 0, 50),
        positions(0, 1, "update", 50, 50, 50),
        positions(1, 1, "update", 50, 0, 50),
        positions(0, 2, "update", 50, 0, 50),
        positions(0, 1, "buffer", 50, 0, 50),
    ]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_what_was_drawn_cannot_be_changed_for_the_next_one() -> None:
    before = positions(0, 1, "update", 5, 0, 5)
    before[:] = 0
    assert sorted(positions(0, 1, "update", 5, 0, 5)) == [0, 1, 2, 3, 4]


def test_orders_and_seeds_are_the_same_on_every_machine() -> None:
    two_rounds = [4, 5, 7, 1, 0, 3, 2, 6, 1, 6, 0, 3, 2, 5, 4, 7]
    assert positions(0, 1, "update", 8, 0, 16).tolist() == two_rounds
    assert sample_seed(0, 1, "update", 0) == 0x1B98743BBCCC104249625E889A5D740E


def test_sample_seeds_differ_by_each_of_their_parts() -> None:
    seeds = {
        sample_seed(*parts)
        for parts in [
            (0, 1, "update", 0),
            (1, 1, "update", 0),
            (0, 2, "update", 0),
            (0, 1, "buffer", 0),
            (0, 1, "update", 1),
        ]
    }
    assert len(seeds) == 5
    assert all(0 <= seed < 2**128 for seed in seeds)


def test_an_empty_pool_is_named() -> None:
    with pytest.raises(InputError, match="buffer pool of stage 3 is empty"):
        positions(0, 3, "buffer", 0, 0, 1)
