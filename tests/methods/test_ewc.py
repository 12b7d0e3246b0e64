"""Online EWC: its Fisher information by brute force, what it adds, and what it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fomo_dagster.errors import InputError
from fomo_dagster.methods.loss.declaration import ClipLoss, SiglipLoss
from fomo_dagster.methods.preservation.ewc import EWC
from fomo_dagster.methods.preservation.ewc.hooks import fisher
from fomo_dagster.methods.preservation.hooks import StageInputs


def brute_force(module: Any, pairs: Any) -> dict[str, Tensor]:
    """Every answer of every prediction with its probability, and the square of its gradient."""
    left = nn.functional.normalize(module.encode_image(pairs.images), dim=1)
    right = nn.functional.normalize(module.encode_text(pairs.tokens), dim=1)
    logits = module.logit_scale.exp() * left @ right.T
    names, parameters = zip(*module.named_parameters(), strict=True)
    totals = [torch.zeros_like(parameter) for parameter in parameters]
    size = len(logits)
    for prediction in [*logits, *logits.T]:
        for answer in range(size):
            log_share = prediction.log_softmax(dim=0)[answer]
            gradients = torch.autograd.grad(
                log_share, parameters, retain_graph=True, materialize_grads=True
            )
            for total, gradient in zip(totals, gradients, strict=True):
                total += log_share.exp().detach() * gradient**2 / (2 * size)
    return dict(zip(names, totals, strict=True))


def brute_force_of_pairs(module: Any, pairs: Any) -> dict[str, Tensor]:
    """Both answers of every pair, likewise, over the number of images."""
    left = nn.functional.normalize(module.encode_image(pairs.images), dim=1)
    right = nn.functional.normalize(module.encode_text(pairs.tokens), dim=1)
    names, parameters = zip(*module.named_parameters(), strict=True)
    totals = [torch.zeros_like(parameter) for parameter in parameters]
    for image in left:
        for text in right:
            belongs = 1 / (1 + (-module.logit_scale.exp() * image @ text - module.logit_bias).exp())
            for share in (belongs, 1 - belongs):
                gradients = torch.autograd.grad(share.log(), parameters, retain_graph=True)
                for total, gradient in zip(totals, gradients, strict=True):
                    total += share.detach() * gradient**2 / len(left)
    return dict(zip(names, totals, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "expected_of"),
    [
        (ClipLoss(), brute_force),
        (ClipLoss(label_smoothing=0.3), brute_force),
        (SiglipLoss(name="siglip"), brute_force_of_pairs),
    ],
    ids=["clip", "smoothed", "siglip"],
)
def test_the_information_is_the_mean_over_all_answers_of_squared_gradients(
    linear: Any, loss: Any, expected_of: Any
) -> None:
    """Of the loss that is trained with: smoothed labels are not the model's own probabilities."""
    stage_context, pairs = linear(3, loss=loss)
    expected = expected_of(stage_context.model.module, pairs)
    assert ("logit_bias" in expected) == (loss.name == "siglip")
    found = fisher(stage_context, [pairs] * 1500)
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=0.15, atol=0.002)
    assert all(p.grad is None for p in stage_context.trained.values())


def test_micro_batches_have_the_information_of_whole_batches(linear: Any) -> None:
    found = []
    for size in (None, 2):
        stage_context, pairs = linear(5, size)
        found.append(fisher(stage_context, [pairs] * 4))
    for name, values in found[0].items():
        torch.testing.assert_close(found[1][name], values, rtol=1e-10, atol=1e-14)


def test_the_information_decays_and_adds_up_and_pulls_at_the_weights(linear: Any) -> None:
    stage_context, pairs = linear(4)

    def update(size: int, samples: int) -> Iterator[Any]:
        assert (size, samples) == (4, 12)
        yield from [pairs] * 3

    settings = EWC(name="ewc", strength=6, decay=0.25, samples=12, batch_size=4)
    random = torch.Generator().manual_seed(5)
    carried = {n: torch.rand(p.shape, generator=random) for n, p in stage_context.trained.items()}
    start = {name: parameter.detach().clone() for name, parameter in stage_context.trained.items()}
    held = settings.begin(stage_context, StageInputs(carried=carried, update=update))
    moved = {n: torch.randn(p.shape, generator=random) for n, p in stage_context.trained.items()}
    with torch.no_grad():
        for name, parameter in stage_context.trained.items():
            parameter += moved[name]
    penalty = held.add_penalty_gradient()
    assert penalty is not None
    expected = sum(float((carried[n].double() * moved[n].double() ** 2).sum()) for n in moved)
    assert float(penalty) == pytest.approx(6 / 2 * expected, rel=1e-6)
    for name, parameter in stage_context.trained.items():
        torch.testing.assert_close(
            parameter.grad, 6 * carried[name].double() * (parameter.detach() - start[name])
        )
    left = held.end_of_stage()
    found = fisher(stage_context, update(4, 12))
    for name, tensor in left.items():
        torch.testing.assert_close(tensor, 0.25 * carried[name] + found[name])


def test_what_was_left_in_other_shapes_is_refused_and_named(linear: Any) -> None:
    """One that broadcasts would pull at weights that it is not of."""
    stage_context, _ = linear(2)
    carried = {name: torch.ones_like(p) for name, p in stage_context.trained.items()}
    stage_inputs = StageInputs(
        carried=carried | {"text": torch.ones(3)}, update=lambda *_: iter(())
    )
    with pytest.raises(InputError, match=r"'text' has the shape \(3,\) .* and \(4, 3\) here"):
        EWC(name="ewc").begin(stage_context, stage_inputs)


def test_what_was_left_of_other_weights_is_refused_and_named(linear: Any) -> None:
    stage_context, _ = linear(2)
    carried = {"visual": torch.ones(4, 3), "text": torch.ones(4, 3)}
    stage_inputs = StageInputs(carried=carried, update=lambda size, samples: iter(()))
    with pytest.raises(InputError, match="what the stage before left has no 'logit_scale'"):
        EWC(name="ewc").begin(stage_context, stage_inputs)
