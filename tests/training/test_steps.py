from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.data.mixture import StageShares
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.training import Budget
from fomo_dagster.training.steps import steps_of, steps_that_draw


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget(steps=7), 7),
        (Budget(samples=727_040), 1420),  # the benchmark's
        (Budget(samples=1023), 1),
        (Budget(epochs=1), 6),  # 1000 samples, 175 a step
        (Budget(epochs=0.5), 3),
        (Budget(epochs=0.001), 1),
    ],
)
def test_each_unit_buys_its_steps(budget: Budget, expected: int) -> None:
    assert steps_of(budget, 512, 1000, 175) == expected


def test_samples_below_a_batch_are_an_error() -> None:
    with pytest.raises(InputError, match=r"budget.samples is 511, less than one batch of 512"):
        steps_of(Budget(samples=511), 512, 1000, 175)


def test_epochs_over_nothing_are_an_error() -> None:
    with pytest.raises(InputError, match=r"budget\.epochs is 2, .* has 0 samples"):
        steps_of(Budget(epochs=2), 512, 0, 175)


@given(st.integers(1, 40), st.integers(1, 5000), st.integers(1, 600))
def test_epochs_are_the_fewest_steps_that_draw_so_many_samples(
    tenths: int, size: int, batch: int
) -> None:
    steps = steps_of(Budget(epochs=tenths / 10), 1024, size, batch)
    wanted = Fraction(tenths, 10) * size
    assert steps * batch >= wanted
    assert steps == 1 or (steps - 1) * batch < wanted


@given(
    wanted=st.floats(1, 300),
    near=st.integers(1, 60),
    place=st.sampled_from([0.1, 0.5]),
    linear=st.booleans(),
)
def test_epochs_over_changing_batches_count_what_is_really_drawn(
    wanted: float, near: int, place: float, linear: bool
) -> None:
    later = {"update": 0.5, "buffer": 0.5}
    shares = StageShares(((0.0, {"pretraining": 1.0}), (place, later)), linear)

    def drawn(steps: int) -> int:
        return shares.drawn("update", 16, steps)

    steps = steps_that_draw(wanted, drawn, near=near)
    sizes = shares.sizes(16, steps) if steps > 3 else None
    if sizes is not None:
        assert sum(sizes.at(step)["update"] for step in range(steps)) == drawn(steps)
    assert drawn(steps) >= wanted
    assert steps == 1 or drawn(steps - 1) < wanted
