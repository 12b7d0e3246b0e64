from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fomo_dagster.merging import exact_quantiles
from fomo_dagster.merging.exact_quantiles import select

NUMBERS = st.one_of(
    st.floats(0, width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, 1.0, 1.0000001, 2.0, 1e-45, 3.4e38]),
)


class Numbers:
    """What `select` goes through, in pieces."""

    def __init__(self, numbers: np.ndarray, cuts: list[int]) -> None:
        self.numbers, self.cuts, self.passes = numbers, cuts, 0

    def select(self, ranks: list[int]) -> list[float]:
        return select(self._go_through, ranks, len(self.numbers), self.sampled)

    def _go_through(self, work):
        self.passes += 1
        return map(work, np.split(self.numbers, self.cuts))

    def sampled(self, step: int) -> np.ndarray:
        return self.numbers[::step]


class Misleading(Numbers):
    """Whose samples are of other numbers."""

    def sampled(self, step: int) -> np.ndarray:
        return np.zeros_like(self.numbers[::step])


@pytest.fixture(params=[8, 2**18])
def sampled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_quantiles, "SAMPLED", request.param)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data(), st.sampled_from([Numbers, Misleading]))
@pytest.mark.usefixtures("sampled")
def test_what_is_selected_is_what_sorting_gives(data: st.DataObject, kind: type[Numbers]) -> None:
    numbers = np.abs(np.array(data.draw(st.lists(NUMBERS, min_size=1, max_size=60)), np.float32))
    rank = st.integers(0, len(numbers) - 1)
    ranks = data.draw(st.lists(rank, min_size=1, max_size=4))
    cuts = sorted(data.draw(st.lists(rank, max_size=3)))
    if len(numbers) < 2 * exact_quantiles.SAMPLED:
        kind = Numbers  # all are sampled
    found = kind(numbers, cuts).select(ranks)
    assert found == [float(np.partition(numbers, rank)[rank]) for rank in ranks]


@pytest.mark.parametrize("spread", [0.0, 1e-7, 1.0])
@pytest.mark.parametrize("kind", [Numbers, Misleading])
def test_among_many_numbers_that_are_nearly_alike(
    spread: float, kind: type[Numbers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact_quantiles, "SAMPLED", 1_000)
    numbers = (1 + spread * np.random.default_rng(0).normal(size=20_000)) ** 2
    given_numbers = kind(numbers.astype(np.float32), [1, 2_000, 19_000])
    ranks = [0, 9_999, 10_000, 19_999]
    assert given_numbers.select(ranks) == np.sort(given_numbers.numbers)[ranks].tolist()
    assert given_numbers.passes == (1 if kind is Numbers else 3)


def test_of_a_bracket_no_more_is_held_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_quantiles, "SAMPLED", 1_000)
    monkeypatch.setattr(exact_quantiles, "HELD_AT_MOST", 10)
    numbers = np.random.default_rng(0).random(20_000, np.float32)
    given_numbers = Numbers(numbers, list(range(1_000, 20_000, 1_000)))
    assert given_numbers.select([7_000]) == [float(np.sort(numbers)[7_000])]
    assert given_numbers.passes == 3
