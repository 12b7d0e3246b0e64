"""What all methods do that carry importances of weights from stage to stage, on the toy problem."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fomo_dagster.methods.preservation.ewc.hooks import fisher
from fomo_dagster.methods.preservation.hooks import StageInputs
from fomo_dagster.methods.preservation.mas.hooks import sensitivities

DECLARED: dict[str, dict[str, Any]] = {
    "ewc": {"strength": 3e6, "samples": 64, "batch_size": 8},
    "si": {"strength": 20},
    "mas": {"strength": 0.1, "samples": 32},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DECLARED)
def test_it_forgets_less_and_learns_as_much(toy: Any, task: Any, name: str) -> None:
    declared = {"name": name, **DECLARED[name]}
    first, left = toy.stage(toy.theta(), task(1), declared, identity="first")
    plain_first, _ = toy.stage(toy.theta(), task(1), identity="plain first")
    for key, tensor in plain_first.module.state_dict().items():
        assert torch.equal(tensor, first.module.state_dict()[key]), "nothing pulls at first"
    assert left.keys() == dict(first.module.named_parameters()).keys()
    assert all(bool((tensor >= 0).all()) for tensor in left.values())
    plain, _ = toy.stage(first, task(2), stage=2, identity="plain")
    stage_inputs = StageInputs(carried=left)
    held, _ = toy.stage(
        first, task(2), declared, stage_inputs=stage_inputs, stage=2, identity="held"
    )
    assert task(1).loss(held) < 0.2 * task(1).loss(plain)
    assert task(2).loss(held) < 0.02 < 0.5 < task(2).loss(first)


@pytest.mark.slow
@pytest.mark.parametrize("name", DECLARED)
def test_an_interrupted_second_stage_ends_bit_for_bit_as_a_whole_one(
    toy: Any, task: Any, name: str
) -> None:
    declared = {"name": name, **DECLARED[name]}
    first, left = toy.stage(toy.theta(), task(1), declared, identity="first")
    given = {"preserve": declared, "stage_inputs": StageInputs(carried=left), "stage": 2}
    whole, whole_left = toy.stage(first, task(2), identity="whole", **given)
    with pytest.raises(OSError, match="disk"):
        toy.stage(first, task(2), identity="broken", fail_at=23, **given)
    resumed, resumed_left = toy.stage(first, task(2), identity="broken", **given)
    for key, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, resumed.module.state_dict()[key]), key
    assert whole_left.keys() == resumed_left.keys()
    for key, tensor in whole_left.items():
        assert torch.equal(tensor, resumed_left[key]), key


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_what_is_measured_in_lower_precision_is_what_there_is(
    toy: Any, task: Any, precision: str
) -> None:
    """At trained weights, whose gradients are small; in fp16 they must not underflow."""
    model, _ = toy.stage(toy.theta(), task(1), identity="first")
    batches = [task(1).batch(step, {}) for step in range(4)]
    pairs = [type(b)(b.images[:1], b.tokens[:1], {"update": 1}) for b in batches]

    def measured(precision: str) -> list[Tensor]:
        stage_context = toy.stage_context(model, precision=precision)
        found = (fisher(stage_context, batches), sensitivities(stage_context, pairs))
        assert all(t.dtype == torch.float32 for tensors in found for t in tensors.values())
        return [torch.cat([t.flatten() for t in tensors.values()]) for tensors in found]

    for exact, lower in zip(measured("fp32"), measured(precision), strict=True):
        assert float(lower.sum()) == pytest.approx(float(exact.sum()), rel=0.1)
        assert float(torch.corrcoef(torch.stack([exact, lower]))[0, 1]) > 0.99
