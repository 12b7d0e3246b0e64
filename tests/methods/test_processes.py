"""Several processes with a part of each batch train what one does with the whole."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter
from torch.testing import assert_close

from fomo_dagster.distributed.process_group import ProcessGroup
from fomo_dagster.methods.adapters.declaration import Scaled
from fomo_dagster.methods.adapters.wrapping import add_adapters
from fomo_dagster.methods.preservation.registry import PRESERVATIONS, AnyPreservation

pytestmark = pytest.mark.slow

STEPS = 3
TEACHER = {
    "name": "teacher",
    "architecture": "ViT-B-32",
    "pretrained": "openai",  # never fetched: the model comes from `StageInputs`
}
# Name → what it is declared with, so that it acts in a few steps of 8 samples.
SETTINGS: dict[str, dict[str, Any]] = {
    "l2": {"strength": 0.1},
    "ewc": {"strength": 10, "samples": 8, "batch_size": 4},
    "si": {"strength": 1},
    "mas": {"strength": 1, "samples": 7},
    "zscl": {"l2": 0.1},
    "gnsp": {"samples": 8, "batch_size": 4},
    "spu": {"samples": 8, "batch_size": 4},
    "inflora": {"samples": 8, "batch_size": 4},
    "olora": {"strength": 0.1, "begin_at": "orthogonal"},
    "transfer": {"teacher": TEACHER},
}
READY = {
    name: lambda model: add_adapters(model.module, Scaled(name="lora", rank=2), 0)
    for name in ("inflora", "olora")
}
NAMES = [name for one in PRESERVATIONS for name in get_args(one.model_fields["name"].annotation)]


@pytest.fixture(autouse=True)
def few_steps(toy: Any) -> None:
    object.__setattr__(toy, "steps", STEPS)
    object.__setattr__(toy, "epsilon", 1e-4)


@pytest.mark.parametrize("name", [None, *NAMES])
def test_processes_with_parts_of_a_batch_train_what_one_does_with_the_whole(
    toy: Any, task: Any, together: Any, name: str | None
) -> None:
    """Each pool's 8 rows, in two processes or (in micro-batches of one) in three: to 1e-5 in fp32,
    what is left for the next stage too, and bit for bit among the processes."""
    preserve = None if name is None else {"name": name, **SETTINGS.get(name, {})}
    draws = preserve and TypeAdapter(AnyPreservation).validate_python(preserve).pools
    pools = ("buffer", "pretraining") if draws else ()
    settings = {
        "preserve": preserve,
        "stage_inputs": toy.second_stage(preserve),
        "train": READY.get(name or ""),
        "pools": {pool: task(number) for number, pool in enumerate(pools, start=10)},
    }
    start = toy.theta()
    expected, left = toy.stage(start, task(1), identity="alone", **settings)

    def work(group: ProcessGroup) -> Any:
        model, left = toy.stage(
            start, task(1), identity="together", group=group,
            micro_batch_size=1 if group.world_size == 3 else None, **settings,
        )  # fmt: skip
        return model.module.state_dict(), left

    results = together(3 if preserve else 2, work)
    for weights, also_left in results:
        assert_close(weights, expected.module.state_dict(), rtol=0, atol=1e-5)
        scale = max([1.0, *(float(tensor.abs().max()) for tensor in left.values())])
        assert_close(also_left, left, rtol=0, atol=1e-4 * scale)
        assert all(torch.equal(tensor, results[0][0][name]) for name, tensor in weights.items())


def test_a_resume_point_is_taken_up_by_any_number_of_processes(
    toy: Any, task: Any, together: Any
) -> None:
    """By as many as wrote it bit for bit; by one to 1e-5."""
    start = toy.theta()

    def train(group: ProcessGroup, identity: str, fail_at: int | None = None) -> Any:
        settings = {"identity": identity, "group": group, "fail_at": fail_at}
        if fail_at is None:
            return toy.stage(start, task(1), {"name": "si"}, **settings)[0].module.state_dict()
        with pytest.raises(OSError, match="the disk is gone"):
            toy.stage(start, task(1), {"name": "si"}, **settings)
        return None

    (whole, _) = together(2, lambda group: train(group, "whole"))
    for identity in ("by_two", "by_one"):
        together(2, lambda group, identity=identity: train(group, identity, fail_at=2))
    (by_two, _) = together(2, lambda group: train(group, "by_two"))
    assert all(torch.equal(tensor, whole[name]) for name, tensor in by_two.items())
    assert_close(train(ProcessGroup(), "by_one"), whole, rtol=0, atol=1e-5)
