from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.experiment.schedules import Schedule
from fomo_dagster.training.schedules import learning_rate


def rates(schedule: Schedule, steps: int, peak: float = 1.0) -> list[float]:
    return [learning_rate(schedule, peak, stage=1, step=step, steps=steps) for step in range(steps)]


def test_cosine_agrees_with_torchs_schedulers() -> None:
    """Warm-up to the peak at its last step, then torch's cosine annealing from there on."""
    steps, warmup, peak = 100, 10, 2e-3
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=peak)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps - warmup, peak * 0.001)
    expected = [peak * (i + 1) / warmup for i in range(warmup)]
    for _ in range(steps - warmup):
        optimiser.step()
        cosine.step()
        expected.append(optimiser.param_groups[0]["lr"])
    assert rates(Schedule(), steps, peak) == pytest.approx(expected, rel=1e-9)


def test_the_benchmarks_stage_of_1420_steps_warms_up_for_142_and_ends_at_the_floor() -> None:
    found = rates(Schedule(), 1420)
    assert found[0] == 1 / 142
    assert found[141] == 1.0
    assert found[142] == pytest.approx(0.001 + 0.999 * (1 + math.cos(math.pi / 1278)) / 2)
    assert found[1419] == pytest.approx(0.001)


def test_a_constant_rate_has_the_same_warm_up() -> None:
    found = rates(Schedule(name="constant", warmup=0.25), 8)
    assert found == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_a_share_of_steps_is_not_rounded_up_by_its_binary_form() -> None:
    assert 0.07 * 100 > 7
    assert rates(Schedule(name="constant", warmup=0.07), 100)[6] == 1.0
    assert rates(Schedule(name="constant", warmup=0.07), 100)[5] == pytest.approx(6 / 7)


@given(
    st.integers(1, 500),
    st.floats(0, 0.99),
    st.floats(0, 1),
    st.sampled_from(["cosine", "constant"]),
)
def test_rates_rise_to_the_peak_then_never_rise_nor_leave_their_bounds(
    steps: int, warmup: float, factor: float, name: str
) -> None:
    schedule = Schedule.model_validate({"name": name, "warmup": warmup, "final_factor": factor})
    found = rates(schedule, steps, 3.0)
    top = found.index(max(found))
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    assert all(0 <= rate <= 3.0 + 1e-12 for rate in found)


@pytest.mark.parametrize("step", [-1, 10])
def test_a_step_outside_the_stage_is_an_error(step: int) -> None:
    with pytest.raises(ValueError, match=f"step {step} is not one of 10"):
        learning_rate(Schedule(), 1.0, stage=1, step=step, steps=10)
