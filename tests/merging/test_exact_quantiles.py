from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fomo_dagster.merging.exact_quantiles import select

NUMBERS = st.one_of(
    st.floats(0, width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, 1.0, 1.0000001, 2.0, 1e-45, 3.4e38]),
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_is_selected_is_what_sorting_gives(data: st.DataObject) -> None:
    numbers = np.abs(np.array(data.draw(st.lists(NUMBERS, min_size=1, max_size=60)), np.float32))
    rank = st.integers(0, len(numbers) - 1)
    ranks = data.draw(st.lists(rank, min_size=1, max_size=4))
    cuts = sorted(data.draw(st.lists(rank, max_size=3)))
    found = select(lambda count: (count(x) for x in np.split(numbers, cuts)), ranks)
    assert found == [float(np.partition(numbers, rank)[rank]) for rank in ranks]


@pytest.mark.parametrize("spread", [0.0, 1e-7, 1.0])
def test_among_many_numbers_that_are_nearly_alike(spread: float) -> None:
    numbers = (1 + spread * np.random.default_rng(0).normal(size=20_000)) ** 2
    numbers = numbers.astype(np.float32)
    passes = []

    def go_through(count):
        passes.append(count)
        return map(count, np.array_split(numbers, 7))

    ranks = [0, 9_999, 10_000, 19_999]
    assert select(go_through, ranks) == np.sort(numbers)[ranks].tolist()
    assert len(passes) == 2
