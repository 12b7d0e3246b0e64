"""Batch sizes from shares: the released code's rounding, and how shares change over a stage."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fomo_dagster.data.mixture import (
    POOLS,
    StageShares,
    StepSizes,
    batch_sizes,
    drawn_for,
    first_stage_shares,
    kept_of,
)
from fomo_dagster.errors import InputError

DEFAULT = {"update": 0.34, "buffer": 0.33, "pretraining": 0.33}


@st.composite
def mixtures(draw: st.DrawFn) -> dict[str, float]:
    """Shares in percent that add up to one; each may be 0."""
    update = draw(st.integers(0, 100))
    buffer = draw(st.integers(0, 100 - update))
    return {
        "update": update / 100,
        "buffer": buffer / 100,
        "pretraining": (100 - update - buffer) / 100,
    }


@given(batch_size=st.integers(1, 40), shares=mixtures())
def test_sizes_are_rounded_down_and_up_in_turn_and_zero_shares_get_none(
    batch_size: int, shares: dict[str, float]
) -> None:
    percents = {pool: round(shares[pool] * 100) for pool in POOLS}
    expected = {pool: batch_size * percents[pool] // 100 for pool in POOLS}
    turns = [pool for pool in ("pretraining", "update", "buffer") if percents[pool]]
    for pool in sorted(
        turns, key=lambda pool: (batch_size * percents[pool] < 50, expected[pool] > 0)
    ):
        if sum(expected.values()) < batch_size:
            expected[pool] += 1
    starved = [pool for pool in POOLS if percents[pool] and not expected[pool]]
    if starved:
        with pytest.raises(InputError, match=f"the {starved[0]} pool's share"):
            batch_sizes(batch_size, shares)
    else:
        assert batch_sizes(batch_size, shares) == expected


@given(batch_size=st.integers(3, 10**6), shares=mixtures())
def test_sizes_add_up_to_the_batch(batch_size: int, shares: dict[str, float]) -> None:
    assume(all(share == 0 or batch_size * share >= 1 for share in shares.values()))
    assert sum(batch_sizes(batch_size, shares).values()) == batch_size


@pytest.mark.parametrize(
    ("batch_size", "later", "first"),
    [(512, (175, 168, 169), (259, 0, 253)), (128, (43, 42, 43), (64, 0, 64))],
)
def test_the_rows_of_a_batch_are_those_of_the_released_code(
    batch_size: int, later: tuple[int, ...], first: tuple[int, ...]
) -> None:
    shares = StageShares(((0.0, DEFAULT),))
    assert tuple(shares.sizes(batch_size, 3).at(0).values()) == later
    bufferless = shares.without_buffer()
    assert tuple(bufferless.sizes(batch_size, 3).at(2).values()) == first
    assert bufferless.mean_size("update", batch_size) == first[0]
    assert bufferless.pools == ("update", "pretraining")


def test_every_pool_of_a_small_batch_has_a_sample_where_its_share_is_near_one() -> None:
    assert set(batch_sizes(3, DEFAULT).values()) == {1}
    assert batch_sizes(9, {"update": 0.08, "buffer": 0.92})["update"] == 1


def test_a_buffer_without_other_pools_than_the_update_pool_is_all_its_own() -> None:
    bufferless = StageShares(((0.0, {"update": 0.5, "buffer": 0.5}),)).without_buffer()
    assert bufferless.sizes(9, 1).at(0) == {"update": 9, "buffer": 0, "pretraining": 0}


def test_shares_that_add_up_to_almost_one_are_taken_as_thirds() -> None:
    shares = dict.fromkeys(POOLS, 0.3333333)
    assert batch_sizes(30_000_000, shares) == dict.fromkeys(POOLS, 10_000_000)


def test_sizes_add_up_where_the_shares_do_only_nearly() -> None:
    shares = {"update": 0.500001, "buffer": 0.25, "pretraining": 0.25}
    assert sum(batch_sizes(10_000_000, shares).values()) == 10_000_000


@given(shares=mixtures())
def test_the_first_stage_gives_the_buffer_share_half_to_each_other_pool_in_use(
    shares: dict[str, float],
) -> None:
    assume(shares["update"] > 0)
    first = first_stage_shares(shares)
    if shares["pretraining"] > 0:
        half = shares["buffer"] / 2
        assert first["update"] == pytest.approx(shares["update"] + half)
        assert first["pretraining"] == pytest.approx(shares["pretraining"] + half)
    else:
        assert first["update"] == pytest.approx(1)
        assert first["pretraining"] == 0
    assert first["buffer"] == 0


def test_shares_without_any_pool_are_refused() -> None:
    with pytest.raises(InputError, match="no pool has a share"):
        batch_sizes(8, {"update": 0})
    with pytest.raises(InputError, match="first stage has no buffer"):
        first_stage_shares({"buffer": 1.0})


@given(
    runs=st.lists(st.tuples(st.integers(1, 5), *[st.integers(0, 3)] * 3), min_size=1, max_size=6)
)
def test_what_steps_before_drew_is_their_sum(runs: list[tuple[int, int, int, int]]) -> None:
    every = [dict(zip(POOLS, sizes, strict=True)) for length, *sizes in runs for _ in range(length)]
    firsts = [sum(length for length, *_ in runs[:place]) for place in range(len(runs))]
    named = [dict(zip(POOLS, sizes, strict=True)) for _, *sizes in runs]
    sizes = StepSizes(zip(firsts, named, strict=True), len(every))
    for step, expected in enumerate(every):
        assert sizes.at(step) == expected
        before = {pool: sum(one[pool] for one in every[:step]) for pool in POOLS}
        assert sizes.before(step) == before
    assert sizes.drawn == {pool: sum(one[pool] for one in every) for pool in POOLS}
    assert sizes.largest == {pool: max(one[pool] for one in every) for pool in POOLS}


def test_a_pool_that_there_is_not_is_named() -> None:
    with pytest.raises(InputError, match=r"'updates'.*'update'"):
        StepSizes.constant({"updates": 2}, 3)


FIRST = {"update": 0.0, "buffer": 0.0, "pretraining": 1.0}


def test_shares_that_hold_begin_at_their_share_of_the_steps() -> None:
    shares = StageShares(((0.0, FIRST), (0.3, DEFAULT), (0.7, {"update": 1.0})))
    for steps in (10, 11, 1420):
        sizes = shares.sizes(512, steps)
        for step in range(steps):
            past = Fraction(step, steps)
            expected = FIRST if past < Fraction(3, 10) else DEFAULT
            expected = {"update": 1.0} if past >= Fraction(7, 10) else expected
            assert sizes.at(step) == batch_sizes(512, expected)
    assert shares.pools == POOLS
    drawn = shares.sizes(512, 1420).drawn
    assert drawn["buffer"] == 168 * 568
    for pool in POOLS:
        assert shares.mean(pool) * 512 * 1420 == pytest.approx(drawn[pool], rel=0.01)


@given(
    batch_size=st.integers(2, 40), steps=st.integers(2, 60), ends=st.tuples(mixtures(), mixtures())
)
def test_a_ramp_goes_evenly_from_end_to_end(
    batch_size: int, steps: int, ends: tuple[dict[str, float], dict[str, float]]
) -> None:
    first, last = ends
    for shares in ends:  # what is too small at an end is refused, and tested below
        assume(all(share == 0 or batch_size * share >= 1 for share in shares.values()))
    try:
        sizes = StageShares(((0.0, first), (1.0, last)), linear=True).sizes(batch_size, steps)
    except InputError:  # three shares together may still leave one without a sample on the way
        assume(False)
    for step in range(steps):
        way = Fraction(step, steps - 1)
        quotas = [
            batch_size * (Fraction(str(first[pool])) * (1 - way) + Fraction(str(last[pool])) * way)
            for pool in POOLS
        ]
        found = sizes.at(step)
        assert sum(found.values()) == batch_size
        # Within one of the quota, however it is rounded; the tolerance is that of decimals.
        for pool, quota in zip(POOLS, quotas, strict=True):
            assert abs(found[pool] - quota) < 1 + Fraction(1, 1000)
    assert sizes.at(0) == batch_sizes(batch_size, first)
    assert sizes.at(steps - 1) == batch_sizes(batch_size, last)


def test_a_ramp_draws_what_its_mean_says() -> None:
    ramp = StageShares(((0.0, FIRST), (0.5, DEFAULT)), linear=True)
    drawn = ramp.sizes(512, 2000).drawn
    for pool in POOLS:
        assert abs(drawn[pool] - ramp.mean(pool) * 512 * 2000) < 2000  # a row a batch
        assert ramp.mean_size(pool, 512) == 512 * ramp.mean(pool)
    assert ramp.mean("update") == pytest.approx(0.34 * 0.75)
    assert math.isclose(sum(map(ramp.mean, POOLS)), 1)


def test_a_share_may_vanish_on_the_way_to_0_and_nowhere_else() -> None:
    rising = StageShares(((0.0, {"update": 1.0}), (1.0, {"update": 0.5, "buffer": 0.5})), True)
    counts = [rising.sizes(4, 9).at(step)["buffer"] for step in range(9)]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 2)
    assert counts[1] == 0, "a sixteenth of 4"
    starved = StageShares(((0.0, {"update": 0.9, "buffer": 0.1}), (1.0, {"update": 1.0})), True)
    with pytest.raises(InputError, match=r"at 0 of the steps, batch_size 4 .* buffer .* 0\.1"):
        starved.sizes(4, 9)


def test_what_no_step_draws_from_is_refused() -> None:
    late = StageShares(((0.0, {"update": 1.0}), (0.95, DEFAULT)))
    with pytest.raises(InputError, match=r"point at 0\.95 .* none of the 10 steps"):
        late.sizes(9, 10)
    assert late.sizes(9, 20).drawn["buffer"] == 2
    peak = {"update": 0.5, "buffer": 0.5}
    passing = StageShares(((0.0, {"update": 1.0}), (0.5, peak), (1.0, {"update": 1.0})), True)
    with pytest.raises(InputError, match=r"buffer pool has a share .* none of the 2 steps"):
        passing.sizes(9, 2)
    assert passing.sizes(9, 3).drawn["buffer"] == 4


def test_without_buffer_a_ramp_stays_even() -> None:
    ends = {"update": 0.5, "buffer": 0.5}, dict(DEFAULT)
    ramp = StageShares(((0.0, ends[0]), (1.0, ends[1])), linear=True).without_buffer()
    assert ramp.pools == ("update", "pretraining")
    counts = [ramp.sizes(200, 21).at(step)["pretraining"] for step in range(21)]
    assert (counts[0], counts[-1]) == (0, 99)
    assert {b - a for a, b in pairwise(counts)} <= {4, 5, 6}


def test_shares_that_stay_are_written_as_they_always_were() -> None:
    assert StageShares(((0.0, DEFAULT),)).as_data() == DEFAULT
    changing = StageShares(((0.0, FIRST), (0.5, DEFAULT)))
    assert changing.as_data()["points"] == [{"at": 0.0, **FIRST}, {"at": 0.5, **DEFAULT}]
    assert changing.as_data() != StageShares(changing.points, linear=True).as_data()


@given(kept=st.integers(0, 5000), share=st.integers(1, 999).map(lambda n: n / 1000))
def test_what_is_kept_of_what_is_drawn_for_it_is_what_was_asked_for(
    kept: int, share: float
) -> None:
    drawn = drawn_for(kept, share)
    assert kept_of(drawn, share) == kept
    assert abs(drawn * Fraction(str(share)) - kept) <= Fraction(str(share)) / 2


def test_larger_batches_have_every_pool_in_proportion() -> None:
    shares = StageShares(((0.0, FIRST), (0.5, DEFAULT)))
    sizes = shares.sizes(100, 10)
    larger = sizes.enlarged(0.2)
    assert larger.at(0) == {"update": 0, "buffer": 0, "pretraining": 500}
    assert larger.at(9) == {"update": 170, "buffer": 165, "pretraining": 165}
    assert larger.drawn == {pool: 5 * count for pool, count in sizes.drawn.items()}
