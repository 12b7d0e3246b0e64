from __future__ import annotations

from typing import Any

import pytest
import torch

from fomo_dagster.methods.preservation.hooks import StageInputs
from fomo_dagster.methods.preservation.weight_penalty import pull


def test_a_pull_is_the_gradient_of_the_penalty_it_returns() -> None:
    """Against autograd in float64, beside a gradient that was there and where there was none."""
    random = torch.Generator().manual_seed(0)

    def numbers() -> torch.Tensor:
        return torch.randn(3, 4, generator=random, dtype=torch.float64)

    parameters = {name: torch.nn.Parameter(numbers()) for name in "ab"}
    anchors = {name: numbers() for name in "ab"}
    importances = {name: numbers().abs() for name in "ab"}
    there = numbers()
    parameters["a"].grad = there.clone()
    found = pull(parameters, anchors, importances, 0.7)
    expected = sum(
        0.7 / 2 * (importances[name] * (parameters[name] - anchors[name]) ** 2).sum()
        for name in "ab"
    )
    gradients = torch.autograd.grad(expected, list(parameters.values()))
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(parameters["a"].grad, there + gradients[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(parameters["b"].grad, gradients[1], rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["start", "initial"])
def test_l2_stays_nearer_to_its_anchor_and_forgets_less(toy: Any, task: Any, to: str) -> None:
    theta = toy.theta()
    first, _ = toy.stage(theta, task(1), identity="first")
    stage_inputs = StageInputs(reference=lambda: toy.copy(theta))
    anchor = {"start": first, "initial": theta}[to].module.state_dict()
    declared = {"name": "l2", "strength": 0.3, "to": to}
    plain, left = toy.stage(first, task(2), identity="plain")
    held, _ = toy.stage(first, task(2), declared, stage_inputs=stage_inputs, identity="held")
    assert left == {}

    def distance(model: Any) -> float:
        return sum(
            float((v - anchor[k]).square().sum()) for k, v in model.module.state_dict().items()
        )

    assert distance(held) < 0.5 * distance(plain)
    if to == "start":
        assert task(1).loss(held) < task(1).loss(plain)


def test_an_interrupted_stage_under_l2_ends_bit_for_bit_as_a_whole_one(toy: Any, task: Any) -> None:
    declared = {"name": "l2", "strength": 0.3}
    whole, _ = toy.stage(toy.theta(), task(1), declared, identity="whole")
    with pytest.raises(OSError, match="disk"):
        toy.stage(toy.theta(), task(1), declared, identity="broken", fail_at=7)
    resumed, _ = toy.stage(toy.theta(), task(1), declared, identity="broken")
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, resumed.module.state_dict()[name]), name
