"""MAS's sensitivities, against the closed form for linear towers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from fomo_dagster.data.transforms import normalise
from fomo_dagster.methods.preservation.hooks import StageInputs
from fomo_dagster.methods.preservation.mas import MAS
from fomo_dagster.methods.preservation.mas.hooks import sensitivities


class Pair(NamedTuple):
    images: torch.Tensor
    tokens: torch.Tensor
    counts: dict[str, int]


def one_by_one(pairs: Any) -> Iterator[Any]:
    for image, text in zip(pairs.images, pairs.tokens, strict=True):
        yield type(pairs)(image[None], text[None], {"update": 1})


def test_sensitivities_are_means_of_absolute_gradients_of_squared_lengths(linear: Any) -> None:
    """‖xW‖² has the gradient 2 xᵀ (xW)."""
    stage_context, pairs = linear(7)
    found = sensitivities(stage_context, one_by_one(pairs))
    for name, inputs in (("visual", pairs.images.numpy()), ("text", pairs.tokens.numpy())):
        weights = stage_context.trained[name].detach().numpy()
        expected = np.mean([np.abs(2 * np.outer(x, x @ weights)) for x in inputs], axis=0)
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=1e-10)
    assert float(found["logit_scale"]) == 0


def test_a_locked_tower_has_none_and_is_none_of_the_others_business(linear: Any) -> None:
    stage_context, pairs = linear(3)
    whole = sensitivities(stage_context, one_by_one(pairs))
    stage_context.model.module.visual.requires_grad_(requires_grad=False)
    trained = {name: p for name, p in stage_context.trained.items() if name != "visual"}
    stage_context = type(stage_context)(**{**vars(stage_context), "trained": trained})
    found = sensitivities(stage_context, one_by_one(pairs))
    assert found.keys() == trained.keys()
    assert torch.equal(found["text"], whole["text"])


def test_sensitivities_decay_and_add_up_and_pull_at_the_weights(linear: Any) -> None:
    stage_context, pairs = linear(5)
    random = torch.Generator().manual_seed(5)
    carried = {n: torch.rand(p.shape, generator=random) for n, p in stage_context.trained.items()}
    asked = []

    def drawn(samples: int) -> Iterator[Any]:
        asked.append(samples)
        return one_by_one(pairs)

    settings = MAS(name="mas", strength=3, decay=0.25, samples=5)
    held = settings.begin(stage_context, StageInputs(carried=carried, pairs=drawn))
    with torch.no_grad():
        for parameter in stage_context.trained.values():
            parameter += 0.5
    penalty = held.add_penalty_gradient()
    assert penalty is not None
    expected = 3 * sum(float(tensor.sum()) for tensor in carried.values()) * 0.25
    np.testing.assert_allclose(float(penalty), expected, rtol=1e-6)
    for name, parameter in stage_context.trained.items():
        torch.testing.assert_close(parameter.grad, 2 * 3 * carried[name].double() * 0.5)
    left, found = held.end_of_stage(), sensitivities(stage_context, one_by_one(pairs))
    assert asked == [5]
    for name, tensor in left.items():
        torch.testing.assert_close(tensor, 0.25 * carried[name] + found[name])


def test_pixels_are_seen_as_training_sees_them(toy: Any) -> None:
    model, random = toy.theta(), torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1, 3, 16, 16), generator=random, dtype=torch.uint8)
    tokens = torch.randint(1, 11999, (1, 6), generator=random)
    made = [
        sensitivities(toy.stage_context(model), [Pair(images, tokens, {"update": 1})])
        for images in (pixels, normalise(pixels, model.mean, model.std), pixels.float())
    ]
    for name, tensor in made[0].items():
        torch.testing.assert_close(made[1][name], tensor)
    assert not torch.allclose(made[0]["visual.proj"], made[2]["visual.proj"], rtol=0.1)
