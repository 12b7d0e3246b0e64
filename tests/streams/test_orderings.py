"""Orders of a stream: permutations, seeded, fair, and stable when the stream grows."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.errors import InputError
from fomo_dagster.streams.orderings import ORDERINGS, order_concepts

ENTRIES = st.lists(st.text("abc", min_size=1, max_size=4), unique=True, max_size=20)


@given(entries=ENTRIES, order=st.sampled_from(sorted(ORDERINGS)), seed=st.integers(0, 9))
def test_every_order_is_a_permutation(entries: list[str], order: str, seed: int) -> None:
    assert Counter(order_concepts(entries, order, seed)) == Counter(entries)


def test_as_listed_keeps_the_order() -> None:
    assert order_concepts(["b", "a", "c"], "as_listed", 3) == ["b", "a", "c"]


def test_random_order_makes_every_permutation_equally_likely() -> None:
    seeds = 3000
    counts = Counter(tuple(order_concepts("abc", "random", seed)) for seed in range(seeds))
    expected = seeds / 6
    chi_square = sum(
        (counts[permutation] - expected) ** 2 / expected for permutation in permutations("abc")
    )
    assert chi_square < 20.5  # exceeded once in a thousand at 5 degrees of freedom


@given(entries=ENTRIES, seed=st.integers(0, 9), data=st.data())
def test_random_order_does_not_depend_on_the_listing(
    entries: list[str], seed: int, data: st.DataObject
) -> None:
    listed = data.draw(st.permutations(entries))
    assert order_concepts(listed, "random", seed) == order_concepts(entries, "random", seed)


@given(entries=ENTRIES, seed=st.integers(0, 9))
def test_a_new_concept_leaves_the_random_order_of_the_others(entries: list[str], seed: int) -> None:
    grown = order_concepts([*entries, "new"], "random", seed)
    assert [e for e in grown if e != "new"] == order_concepts(entries, "random", seed)


def test_an_unknown_order_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"'randm'.*'random'"):
        order_concepts(["a"], "randm", 0)
