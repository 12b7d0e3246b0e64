"""SI's path integral, against numbers written out and against the loss that it accounts for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fomo_dagster.methods.preservation.hooks import StageInputs
from fomo_dagster.methods.preservation.si import SI


def test_what_it_leaves_is_the_path_integral_of_the_losss_own_gradient(linear: Any) -> None:
    """Random gradients and updates that have nothing to do with each other, under a penalty."""
    stage_context, _ = linear(2)
    random = torch.Generator().manual_seed(1)

    def numbers() -> dict[str, torch.Tensor]:
        return {n: torch.randn(p.shape, generator=random) for n, p in stage_context.trained.items()}

    carried = {name: tensor.abs() for name, tensor in numbers().items()}
    start = {name: parameter.detach().clone() for name, parameter in stage_context.trained.items()}
    settings = SI(name="si", strength=0.3, damping=0.05)
    held = settings.begin(stage_context, StageInputs(carried=carried))
    lowered = {name: torch.zeros_like(parameter) for name, parameter in start.items()}
    for _ in range(4):
        before = {n: p.detach() - start[n] for n, p in stage_context.trained.items()}
        gradients, changes = numbers(), numbers()
        for name, parameter in stage_context.trained.items():
            parameter.grad = gradients[name].double()
        penalty = held.add_penalty_gradient()
        assert penalty is not None
        expected = 0.3 * sum(float((carried[n] * before[n] ** 2).sum()) for n in before)
        assert float(penalty) == pytest.approx(expected, rel=1e-6, abs=1e-12)
        for name, parameter in stage_context.trained.items():
            pulled = gradients[name].double() + 2 * 0.3 * carried[name] * before[name]
            torch.testing.assert_close(parameter.grad, pulled)
            parameter.data += changes[name]
            lowered[name] -= gradients[name].double() * changes[name].double()
        held.after_step()
    last = {name: parameter.detach().clone() for name, parameter in stage_context.trained.items()}
    for parameter in stage_context.trained.values():
        parameter.data += 1  # an average of the steps that was put into their place
    reduced = cut = 0
    for name, left in held.end_of_stage().items():
        found = carried[name] + lowered[name] / ((last[name] - start[name]) ** 2 + 0.05)
        torch.testing.assert_close(left, found.clamp(min=0), rtol=1e-6, atol=1e-8)
        reduced += int(((lowered[name] < 0) & (left > 0)).sum())
        cut += int((found < 0).sum())
    assert reduced > 0
    assert cut > 0


def test_the_integral_is_what_the_loss_fell_by(linear: Any) -> None:
    stage_context, pairs = linear(6)
    held = SI(name="si").begin(stage_context, StageInputs())

    def step() -> float:
        for parameter in stage_context.trained.values():
            parameter.grad = None
        loss, _ = stage_context.gradient(pairs, 0, held.loss)
        return float(loss)

    first = step()
    for _ in range(300):
        assert held.add_penalty_gradient() is None  # nothing was carried
        with torch.no_grad():
            for parameter in stage_context.trained.values():
                parameter -= 0.01 * parameter.grad
        held.after_step()
        last = step()
    assert first - last > 0.1
    assert sum(float(t.sum()) for t in held.state().values()) == pytest.approx(
        first - last, rel=0.01
    )


def test_an_update_skipped_for_overflowed_gradients_counts_for_nothing(
    linear: Any,
) -> None:
    stage_context, _ = linear(2)
    held = SI(name="si").begin(stage_context, StageInputs())
    for parameter in stage_context.trained.values():
        parameter.grad = torch.full_like(nn.Parameter(parameter), float("inf"))
    held.add_penalty_gradient()
    held.after_step()
    assert all(bool((tensor == 0).all()) for tensor in held.end_of_stage().values())
