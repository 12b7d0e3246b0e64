"""SPU: which weights are chosen, that they alone change, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from fomo_dagster.errors import InputError
from fomo_dagster.methods.averaging.declaration import ExponentialAverage
from fomo_dagster.methods.preservation.hooks import StageInputs
from fomo_dagster.methods.preservation.spu.hooks import SPUHooks, chosen_of, gradient_of
from fomo_dagster.methods.trained_parameters.declaration import Parameters
from fomo_dagster.methods.trained_parameters.selecting import select_trained
from fomo_dagster.optimisation.optimisers import AdamW, ScheduleFreeAdamW

FIRST_LAYERS = Parameters(include=["*.mlp.c_fc.*"])
SPU = {"name": "spu", "share": 0.1, "samples": 8, "batch_size": 4}
DECAYING = AdamW(name="adamw", learning_rate=3e-3, weight_decay=0.5)
SCHEDULE_FREE = ScheduleFreeAdamW(name="schedule_free_adamw", learning_rate=3e-3, weight_decay=0.5)


def first_layers(model: Any) -> None:
    select_trained(model.module, FIRST_LAYERS)


def context_of(toy: Any) -> Any:
    model = toy.theta()
    return replace(toy.stage_context(model), trained=select_trained(model.module, FIRST_LAYERS))


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 1.0])
def test_the_largest_magnitudes_are_chosen_and_of_equal_ones_the_first(share: float) -> None:
    scores = torch.randn(7, 9, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    expected = torch.zeros(63, dtype=torch.bool)
    magnitudes = scores.abs().flatten().tolist()
    for place in sorted(range(63), key=lambda i: (-magnitudes[i], i))[: int(share * 63)]:
        expected[place] = True
    assert torch.equal(chosen_of(scores, share), expected.reshape(7, 9))


def test_the_gradient_is_that_of_the_loss_summed_over_rows_and_batches(toy: Any, task: Any) -> None:
    context = context_of(toy)
    batches = [task(number).batch(0, {}) for number in (1, 2)]
    modes = [part.training for part in context.model.module.modules()]
    found = gradient_of(context, batches)
    module = context.model.module
    assert [part.training for part in module.modules()] == modes
    assert all(parameter.grad is None for parameter in context.trained.values())
    module.eval()
    total = 0
    for batch in batches:
        images = torch.nn.functional.normalize(module.encode_image(batch.images).double(), dim=-1)
        texts = torch.nn.functional.normalize(module.encode_text(batch.tokens).double(), dim=-1)
        logits = module.logit_scale.double().exp() * images @ texts.T
        own = torch.arange(len(logits))
        both = (torch.nn.functional.cross_entropy(one, own) for one in (logits, logits.T))
        total = total + len(logits) * sum(both) / 2
    total.backward()
    for name, parameter in context.trained.items():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("optimiser", "further"),
    [
        (DECAYING, {}),
        (DECAYING, {"average": ExponentialAverage(name="exponential", decay=0.5)}),
        (SCHEDULE_FREE, {}),
    ],
    ids=["adamw", "averaged", "schedule_free"],
)
def test_a_stage_changes_the_chosen_weights_and_no_bit_of_others(
    toy: Any, task: Any, optimiser: Any, further: Any
) -> None:
    object.__setattr__(toy, "steps", 3)
    start = toy.theta()
    trained, left = toy.stage(
        start, task(1), SPU, identity="spu", train=first_layers, optimiser=optimiser, **further
    )
    assert left == {}
    before, after = start.module.state_dict(), trained.module.state_dict()
    for name, tensor in after.items():
        changed = int((tensor != before[name]).sum())
        chosen = int(0.1 * tensor.numel()) if ".mlp.c_fc." in name else 0
        assert changed <= chosen
        assert changed >= chosen // 2


def test_a_share_that_leaves_nothing_to_train_is_refused(toy: Any, task: Any) -> None:
    context = context_of(toy)
    inputs = StageInputs(update=lambda size, samples: iter([task(1).batch(0, {})]))
    with pytest.raises(InputError, match=r"share is 1e-06, and the largest trained tensor has \d+"):
        SPUHooks(context, inputs, share=1e-6, samples=8, batch_size=8)
