"""O-LoRA against its formula over the A of all earlier stages, and where its adapters begin."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from fomo_dagster.errors import InputError
from fomo_dagster.methods.adapters.declaration import Scaled
from fomo_dagster.methods.adapters.wrapping import add_adapters
from fomo_dagster.methods.preservation.hooks import StageInputs
from fomo_dagster.methods.preservation.lora_layers import A, lora_layers
from fomo_dagster.methods.preservation.olora.hooks import OLoRAHooks
from fomo_dagster.methods.registry import AnyMethod

LORA = Scaled(name="lora", rank=2, targets=("key", "visual.*.c_fc"))
OLORA = {"name": "olora", "strength": 0.3}


def adapted(model: Any) -> None:
    add_adapters(model.module, LORA, 0)


def context_of(toy: Any) -> Any:
    model = toy.theta()
    adapted(model)
    trained = {n: p for n, p in model.module.named_parameters() if p.requires_grad}
    return replace(toy.stage_context(model), trained=trained)


def earlier_of(context: Any, stages: int, rank: int = 2) -> dict[str, list[torch.Tensor]]:
    """Layer → A_k of earlier stages."""
    random = torch.Generator().manual_seed(0)
    return {
        name: [torch.randn(rank, width, generator=random) for _ in range(stages)]
        for name, (_, width) in lora_layers(context.model.module).items()
    }


def carried_of(earlier: dict[str, list[torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: sum(one.T @ one for one in rows) for name, rows in earlier.items()}


def hooks(context: Any, carried: Any, *, orthogonal: bool = False) -> OLoRAHooks:
    return OLoRAHooks(
        context, StageInputs(carried=carried), strength=0.3, is_orthogonal_at_first=orthogonal
    )


def test_the_penalty_and_its_gradient_are_those_of_every_earlier_adapter(toy: Any) -> None:
    context = context_of(toy)
    earlier = earlier_of(context, stages=3)
    holding = hooks(context, carried_of(earlier))
    expected, wanted = 0.0, {}
    for name, rows in earlier.items():
        copy = context.trained[name + A].detach().double().requires_grad_()
        penalty = 0.3 * sum((copy @ one.double().T).square().sum() for one in rows)
        penalty.backward()
        expected, wanted[name] = expected + float(penalty.detach()), copy.grad
    given = torch.full_like(context.trained[next(iter(wanted)) + A], 0.5)
    context.trained[next(iter(wanted)) + A].grad = given.clone()
    assert float(holding.add_penalty_gradient()) == pytest.approx(expected, rel=1e-5)
    for place, (name, gradient) in enumerate(wanted.items()):
        there = gradient.float() + (given if place == 0 else 0)
        torch.testing.assert_close(context.trained[name + A].grad, there, rtol=1e-4, atol=1e-5)
    assert hooks(context_of(toy), {}).add_penalty_gradient() is None


def test_adapters_can_begin_where_no_earlier_one_reads(toy: Any) -> None:
    context = context_of(toy)
    before = {name: one.detach().clone() for name, one in context.trained.items()}
    earlier = earlier_of(context, stages=2)
    hooks(context, carried_of(earlier), orthogonal=True)
    for name, rows in earlier.items():
        began = context.trained[name + A].detach()
        for one in rows:
            assert (began @ one.T).abs().max() < 1e-4
        torch.testing.assert_close(began.norm(dim=1), before[name + A].norm(dim=1))
        held = torch.linalg.qr(torch.cat(rows).double().T)[0]
        wanted = before[name + A].double() @ (torch.eye(held.shape[0]) - held @ held.T)
        cosine = torch.nn.functional.cosine_similarity(began.double(), wanted, dim=1)
        torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_adapters_that_earlier_ones_leave_no_room_are_refused(toy: Any) -> None:
    context = context_of(toy)
    full = carried_of(earlier_of(context, stages=1, rank=64))
    with pytest.raises(InputError, match=r"leave .* none of its \d+ directions for 2 more"):
        hooks(context, full, orthogonal=True)


@pytest.mark.slow
def test_what_is_left_is_the_sum_over_stages_and_an_interrupted_one_ends_alike(
    toy: Any, task: Any
) -> None:
    object.__setattr__(toy, "steps", 6)
    given = {"train": adapted}
    first, left = toy.stage(toy.theta(), task(1), OLORA, identity="first", **given)
    settings = OLORA | {"begin_at": "orthogonal"}
    second = given | {"stage_inputs": StageInputs(carried=left), "stage": 2}
    whole, both = toy.stage(toy.theta(), task(2), settings, identity="whole", **second)
    with pytest.raises(OSError, match="disk"):
        toy.stage(toy.theta(), task(2), settings, identity="broken", fail_at=3, **second)
    resumed, again = toy.stage(toy.theta(), task(2), settings, identity="broken", **second)
    state = whole.module.state_dict()
    assert all(torch.equal(tensor, resumed.module.state_dict()[n]) for n, tensor in state.items())
    for name, moment in both.items():
        own = first.module.state_dict()[name + A]
        torch.testing.assert_close(left[name], own.T @ own)
        rows = state[name + A]
        torch.testing.assert_close(moment, left[name] + rows.T @ rows)
        assert torch.equal(moment, again[name])


def test_it_goes_with_lora_of_each_stage_alone() -> None:
    method = {"name": "lora", "rank": 2, "preserve": OLORA}
    with pytest.raises(ValidationError, match="olora designs the LoRA adapters of each stage"):
        TypeAdapter(AnyMethod).validate_python(method)
    TypeAdapter(AnyMethod).validate_python(method | {"adapters": "merge_each_stage"})
