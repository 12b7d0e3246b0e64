"""InfLoRA against the authors' decompositions in float64, and what stays fixed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from fomo_dagster.errors import InputError
from fomo_dagster.methods.adapters.declaration import Scaled
from fomo_dagster.methods.adapters.wrapping import add_adapters
from fomo_dagster.methods.preservation.hooks import StageInputs
from fomo_dagster.methods.preservation.inflora.hooks import (
    InfLoRAHooks,
    main_directions,
    with_more_held,
)
from fomo_dagster.methods.preservation.lora_layers import lora_layers
from fomo_dagster.methods.registry import AnyMethod

LORA = Scaled(name="lora", rank=2, targets=("key", "visual.*.c_fc"))
INFLORA = {"name": "inflora", "samples": 8, "batch_size": 4}
Array = NDArray[np.float64]


def adapted(model: Any) -> None:
    add_adapters(model.module, LORA, 0)


def square_of(seed: int, size: int = 6) -> Array:
    inputs = np.random.default_rng(seed).normal(size=(40, size)) * np.logspace(0, -1.5, size)
    turned = np.linalg.qr(np.random.default_rng(seed + 50).normal(size=(size, size)))[0]
    return turned.T @ inputs.T @ inputs @ turned


def held_after(squares: list[Array], threshold: float) -> Array:
    """`update_GPM` of the authors' code: bases are appended, stage after stage."""
    bases = np.zeros((len(squares[0]), 0))
    for stage, square in enumerate(squares):
        outside = square - bases @ bases.T @ square
        vectors, values, _ = np.linalg.svd(outside)
        total = (np.linalg.svd(square)[1] ** 2).sum()
        if stage == 0:
            count = max(int((np.cumsum(values**2) / total < threshold).sum()), 1)
        else:
            count, covered = 0, 1 - (values**2).sum() / total
            while covered < threshold:
                covered += values[count] ** 2 / total
                count += 1
        bases = np.hstack([bases, vectors[:, :count]])
    return bases @ bases.T


@pytest.mark.parametrize("threshold", [0.3, 0.9, 0.99, 0.9999])
def test_directions_are_held_as_by_the_authors_over_three_stages(threshold: float) -> None:
    squares, held = [square_of(seed) for seed in (1, 2, 3)], None
    for stage, square in enumerate(squares, start=1):
        held = with_more_held(torch.from_numpy(square), held, threshold)
        expected = held_after(squares[:stage], threshold)
        np.testing.assert_allclose(held.numpy(), expected, atol=1e-6)


def test_a_is_the_main_directions_outside_what_is_held() -> None:
    first, second = square_of(1), square_of(2)
    held = held_after([first], 0.9)
    vectors = np.linalg.svd(second - held @ second)[0][:, :2]
    found = main_directions(torch.from_numpy(second), torch.from_numpy(held), 2).numpy()
    np.testing.assert_allclose(np.abs(found), np.abs(vectors.T) / np.sqrt(3), atol=1e-8)
    np.testing.assert_allclose(found @ held, 0, atol=1e-8)
    plain = main_directions(torch.from_numpy(second), None, 2).numpy()
    expected = np.abs(np.linalg.svd(second)[0][:, :2].T) / np.sqrt(3)
    np.testing.assert_allclose(np.abs(plain), expected, atol=1e-8)


def context_of(toy: Any) -> Any:
    model = toy.theta()
    adapted(model)
    trained = {n: p for n, p in model.module.named_parameters() if p.requires_grad}
    return replace(toy.stage_context(model), trained=trained)


def test_what_is_held_of_earlier_inputs_is_not_read(toy: Any, task: Any) -> None:
    """So nothing that B learns reaches an input that lies within it."""
    context = context_of(toy)
    layers = lora_layers(context.model.module)
    assert len(layers) == sum("lora_A" in name for name in context.trained)
    held = {
        name: with_more_held(torch.from_numpy(square_of(4, width)).float(), None, 0.9)
        for name, (_, width) in layers.items()
    }
    InfLoRAHooks(
        context,
        StageInputs(carried=held, update=lambda size, samples: iter([task(1).batch(0, {})])),
        threshold=0.9,
        samples=8,
        batch_size=4,
    )
    for name, projection in held.items():
        read = context.trained[f"{name}.lora_A.default.weight"].detach()
        assert read.norm().item() == pytest.approx((2 / 3) ** 0.5, rel=1e-4)
        assert (read @ projection).abs().max() < 1e-4


@pytest.mark.slow
def test_a_stays_while_b_is_trained_and_an_interrupted_stage_ends_bit_for_bit(
    toy: Any, task: Any
) -> None:
    object.__setattr__(toy, "steps", 6)
    given = {"train": adapted}
    whole, left = toy.stage(toy.theta(), task(1), INFLORA, identity="whole", **given)
    with pytest.raises(OSError, match="disk"):
        toy.stage(toy.theta(), task(1), INFLORA, identity="broken", fail_at=3, **given)
    resumed, left_again = toy.stage(toy.theta(), task(1), INFLORA, identity="broken", **given)
    state = whole.module.state_dict()
    assert all(torch.equal(tensor, resumed.module.state_dict()[n]) for n, tensor in state.items())
    assert all(torch.equal(tensor, left_again[name]) for name, tensor in left.items())
    assert left.keys() == lora_layers(whole.module).keys()
    for name in left:
        read = state[f"{name}.lora_A.default.weight"]
        torch.testing.assert_close(read @ read.T, torch.eye(2) / 3, atol=1e-5, rtol=0)
        assert state[f"{name}.lora_B.default.weight"].abs().max() > 0


def test_directions_of_other_adapters_are_refused(toy: Any) -> None:
    with pytest.raises(InputError, match="was left the directions of other adapters"):
        InfLoRAHooks(
            context_of(toy),
            StageInputs(carried={"visual": torch.eye(3)}, update=lambda size, samples: iter([])),
            threshold=0.9,
            samples=8,
            batch_size=4,
        )


@pytest.mark.parametrize(
    "method", [{}, {"name": "lora"}, {"name": "dora", "adapters": "merge_each_stage"}]
)
def test_it_needs_new_lora_adapters_at_each_stage(method: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="use it with name: lora and adapters: merge_each_s"):
        TypeAdapter(AnyMethod).validate_python({**method, "preserve": {"name": "inflora"}})
