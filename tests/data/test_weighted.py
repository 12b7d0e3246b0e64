"""Shares of weighted pools: exact in the long run, near in any prefix, nothing left out."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fomo_dagster.data.pools import Sample
from fomo_dagster.data.weighted import WeightedPool
from fomo_dagster.data.weighted_round_robin import counts, turn, whole_weights

WEIGHTS = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@given(weights=WEIGHTS, count=st.integers(1, 500))
def test_any_prefix_holds_each_member_near_its_share_and_in_its_own_order(
    weights: list[int], count: int
) -> None:
    had = Counter[int]()
    for position in range(count):
        member, before = turn(weights, position)
        assert before == had[member]  # no position of a member's own sequence is left out
        had[member] += 1
    assert counts(weights, count) == [had[member] for member in range(len(weights))]
    for member, weight in enumerate(weights):
        assert abs(had[member] - Fraction(count * weight, sum(weights))) <= Fraction(
            len(weights), 2
        )


@given(weights=WEIGHTS, start=st.integers(0, 10**15))
def test_any_stretch_of_all_weights_together_holds_each_exactly_so_often(
    weights: list[int], start: int
) -> None:
    drawn = Counter(turn(weights, start + place)[0] for place in range(sum(weights)))
    assert [drawn[member] for member in range(len(weights))] == weights


def test_two_to_one_alternates_evenly() -> None:
    assert [turn([2, 1], position)[0] for position in range(6)] == [0, 1, 0, 0, 1, 0]


def test_whole_weights_are_the_same_for_the_same_proportions() -> None:
    assert whole_weights({"b": 0.7, "a": 0.3}) == {"a": 3, "b": 7}
    assert list(whole_weights({"b": 1, "a": 1})) == ["a", "b"]
    assert whole_weights({"a": 20, "b": 30.0}) == whole_weights({"a": 0.4, "b": 0.6})
    assert whole_weights({"a": 1e-9, "b": 1.0}) == {"a": 1, "b": 10**9}


class Counting:
    """A pool whose captions are its name and position."""

    def __init__(self, name: str, size: int | None) -> None:
        self.name, self.size = name, size

    def sample(self, seed: int, stage: int, position: int) -> Sample:
        return Sample([f"{self.name} {seed} {stage} {position}"], Image.new("RGB", (1, 1)), 3)

    def record(self, seed: int, stage: int, count: int) -> dict[str, int]:
        return {"drawn": count, self.name: count}


@pytest.mark.parametrize(("sizes", "size"), [((4, 5), 9), ((4, None), None)])
def test_a_weighted_pool_draws_each_member_in_its_own_order(
    sizes: tuple[int | None, int | None], size: int | None
) -> None:
    members = {name: Counting(name, n) for name, n in zip("ab", sizes, strict=True)}
    pool = WeightedPool(members, {"a": 1, "b": 3})
    drawn = [pool.sample(7, 2, position).captions[0] for position in range(8)]
    assert sorted(drawn) == [f"a 7 2 {n}" for n in range(2)] + [f"b 7 2 {n}" for n in range(6)]
    assert {pool.sample(7, 2, position).row for position in range(8)} == {-1}
    assert pool.size == size
    assert pool.record(7, 2, 8) == {"drawn": 8, "a": 2, "b": 6}
