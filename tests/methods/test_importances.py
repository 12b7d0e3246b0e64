"""What all methods do that carry importances of weights from stage to stage, on the toy problem."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fomo_dagster.methods.preservation import Beside

DECLARED: dict[str, dict[str, Any]] = {
    "ewc": {"strength": 3e6, "samples": 64, "batch_size": 8},
    "si": {"strength": 20},
    "mas": {"strength": 0.1, "samples": 32},
}


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
    beside = Beside(carried=left)
    held, _ = toy.stage(first, task(2), declared, beside=beside, stage=2, identity="held")
    assert task(1).loss(held) < 0.2 * task(1).loss(plain)
    assert task(2).loss(held) < 0.02 < 0.5 < task(2).loss(first)


@pytest.mark.parametrize("name", DECLARED)
def test_an_interrupted_second_stage_ends_bit_for_bit_as_a_whole_one(
    toy: Any, task: Any, name: str
) -> None:
    declared = {"name": name, **DECLARED[name]}
    first, left = toy.stage(toy.theta(), task(1), declared, identity="first")
    given = {"preserve": declared, "beside": Beside(carried=left), "stage": 2}
    whole, whole_left = toy.stage(first, task(2), identity="whole", **given)
    with pytest.raises(OSError, match="disk"):
        toy.stage(first, task(2), identity="broken", fail_at=23, **given)
    resumed, resumed_left = toy.stage(first, task(2), identity="broken", **given)
    for key, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, resumed.module.state_dict()[key]), key
    assert whole_left.keys() == resumed_left.keys()
    for key, tensor in whole_left.items():
        assert torch.equal(tensor, resumed_left[key]), key
