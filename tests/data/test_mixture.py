"""Batch sizes from shares: the largest remainder, held against a brute-force search."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fomo_dagster.data.mixture import POOLS, batch_sizes, first_stage_shares
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


def apportionments(batch_size: int) -> list[tuple[int, int, int]]:
    return [
        (update, buffer, batch_size - update - buffer)
        for update, buffer in product(range(batch_size + 1), repeat=2)
        if update + buffer <= batch_size
    ]


@given(batch_size=st.integers(1, 40), shares=mixtures())
def test_sizes_are_the_nearest_apportionment_and_zero_shares_get_none(
    batch_size: int, shares: dict[str, float]
) -> None:
    exact = [batch_size * Fraction(round(shares[pool] * 100), 100) for pool in POOLS]
    # The largest remainder minimises the squared distance to the exact quotas (Birkhoff 1976);
    # of equally near ones it is the one that gives more to the earlier pools.
    best = min(
        apportionments(batch_size),
        key=lambda sizes: (
            sum((size - quota) ** 2 for size, quota in zip(sizes, exact, strict=True)),
            [-size for size in sizes],
        ),
    )
    starved = [size == 0 and quota > 0 for size, quota in zip(best, exact, strict=True)]
    if any(starved):
        with pytest.raises(InputError, match=f"the {POOLS[starved.index(True)]} pool's share"):
            batch_sizes(batch_size, shares)
    else:
        sizes = batch_sizes(batch_size, shares)
        assert list(sizes.items()) == list(zip(POOLS, best, strict=True))
        assert all(sizes[pool] == 0 for pool in POOLS if shares[pool] == 0)


@given(batch_size=st.integers(3, 10**6), shares=mixtures())
def test_sizes_add_up_to_the_batch(batch_size: int, shares: dict[str, float]) -> None:
    assume(all(share == 0 or batch_size * share >= 1 for share in shares.values()))
    assert sum(batch_sizes(batch_size, shares).values()) == batch_size


def test_the_benchmark_batch() -> None:
    assert batch_sizes(512, DEFAULT) == {"update": 174, "buffer": 169, "pretraining": 169}
    first = first_stage_shares(DEFAULT)
    assert batch_sizes(512, first) == {"update": 259, "buffer": 0, "pretraining": 253}


def test_a_tie_goes_to_the_earlier_pool_although_the_shares_are_no_binary_fractions() -> None:
    # 100 · 0.505 = 50.5 and 100 · 0.495 = 49.5
    sizes = batch_sizes(100, first_stage_shares(DEFAULT))
    assert sizes == {"update": 51, "buffer": 0, "pretraining": 49}


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
