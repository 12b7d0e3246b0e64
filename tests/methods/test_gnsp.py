"""GNSP against plain float64 computations, and what it holds and lets go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fomo_dagster.errors import InputError
from fomo_dagster.methods.preservation.gnsp.hooks import (
    GNSPHooks,
    free_directions,
    second_moments,
)
from fomo_dagster.methods.preservation.hooks import StageInputs
from fomo_dagster.methods.preservation.layer_inputs import projected_layers
from fomo_dagster.methods.trained_parameters.declaration import Parameters
from fomo_dagster.methods.trained_parameters.selecting import select_trained
from fomo_dagster.optimisation.optimisers import Sgd

FFN = Parameters(include=["visual.*.mlp.c_fc.weight", "visual.*.mlp.c_proj.weight"])
GNSP = {"name": "gnsp", "samples": 8, "batch_size": 4, "hold_pretraining": False}
PLAIN = Sgd(name="sgd", learning_rate=0.3, momentum=0.0, weight_decay=0, clip_norm=None)


def ffn_alone(model: Any) -> None:
    select_trained(model.module, FFN)


def hooks(context: Any, **inputs: Any) -> GNSPHooks:
    return GNSPHooks(
        context,
        StageInputs(**inputs),
        share=0.15,
        samples=8,
        batch_size=4,
        hold_pretraining="pretraining" in inputs,
    )


def context_of(toy: Any, train: Any = FFN) -> Any:
    model = toy.theta()
    trained = select_trained(model.module, train)
    return replace(toy.stage_context(model), trained=trained)


@pytest.mark.parametrize("share", [0.01, 0.15, 0.5, 0.99])
def test_free_are_the_smallest_directions_with_less_than_the_share_together(share: float) -> None:
    """As the authors search: the smallest k of which the tail from k on is below the share."""
    inputs = np.random.default_rng(0).normal(size=(30, 9)) * np.logspace(0, -2, 9)
    moment = inputs.T @ inputs
    _, values, rows = np.linalg.svd(moment)
    k = next(k for k in range(10) if values[k:].sum() / values.sum() < share)
    expected = rows[k:].T @ rows[k:]
    found = free_directions(torch.from_numpy(moment), share).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert round(float(np.trace(found))) == 9 - k


def test_moments_are_those_of_the_inputs_of_each_layer_and_batches_count_alike(
    toy: Any, task: Any
) -> None:
    context = context_of(toy)
    module, layers = context.model.module, projected_layers(context.model.module)
    assert layers.keys() == context.trained.keys()
    batches = [task(number).batch(0, {}) for number in (1, 2)]
    modes = [part.training for part in module.modules()]
    found = second_moments(context, layers, batches)
    assert [part.training for part in module.modules()] == modes
    module.eval()
    expected = {name: np.zeros((one.in_features,) * 2) for name, one in layers.items()}
    for batch in batches:
        with torch.no_grad():
            for block, prefix in (
                (block, f"visual.transformer.resblocks.{number}.mlp.")
                for number, block in enumerate(module.visual.transformer.resblocks)
            ):
                seen: list[torch.Tensor] = []
                handle = block.mlp.register_forward_pre_hook(
                    lambda _, given, seen=seen: seen.append(given[0])
                )
                module.encode_image(batch.images)
                handle.remove()
                within = block.mlp.gelu(block.mlp.c_fc(seen[0]))
                for name, inputs in (("c_fc", seen[0]), ("c_proj", within)):
                    x = inputs.reshape(-1, inputs.shape[-1]).double().numpy()
                    square = x.T @ x
                    expected[f"{prefix}{name}.weight"] += square / np.sqrt((square**2).sum())
    for name, moment in expected.items():
        np.testing.assert_allclose(found[name].numpy(), moment, rtol=1e-4, atol=1e-5)


def test_gradients_are_projected_and_those_of_other_weights_are_not(toy: Any) -> None:
    context = context_of(toy, Parameters(include=["visual.*.mlp.*"]))
    carried = {
        name: torch.from_numpy(np.diag(np.arange(1.0, layer.in_features + 1))).float()
        for name, layer in projected_layers(context.model.module).items()
    }
    projecting = hooks(context, carried=carried)
    given = {}
    for number, (name, parameter) in enumerate(context.trained.items()):
        random = torch.Generator().manual_seed(number)
        parameter.grad = torch.randn(parameter.shape, generator=random)
        given[name] = parameter.grad.clone()
    assert projecting.add_penalty_gradient() is None
    for name, gradient in given.items():
        if name in carried:  # 1 + 2 + … of n (n+1)/2 is below 0.15
            size = gradient.shape[1]
            free = [k for k in range(1, size + 1) if k * (k + 1) < 0.15 * size * (size + 1)]
            expected = torch.zeros_like(gradient)
            expected[:, : len(free)] = gradient[:, : len(free)]
            torch.testing.assert_close(context.trained[name].grad, expected, atol=1e-5, rtol=0)
        else:
            assert torch.equal(context.trained[name].grad, gradient)


def test_each_stage_adds_its_own_moments_of_unit_length(toy: Any, task: Any) -> None:
    train = {"train": ffn_alone, "optimiser": PLAIN}
    first, left = toy.stage(toy.theta(), task(1), GNSP, identity="one", **train)
    assert all(
        torch.linalg.matrix_norm(moment).item() == pytest.approx(1) for moment in left.values()
    )
    _, both = toy.stage(
        first, task(2), GNSP, identity="two", stage_inputs=StageInputs(carried=left), **train
    )
    for name, moment in both.items():
        assert torch.linalg.matrix_norm(moment - left[name]).item() == pytest.approx(1)


def test_data_of_theta_0_are_held_from_the_first_stage_on(toy: Any, task: Any) -> None:
    context = context_of(toy)
    before = {name: tensor.clone() for name, tensor in context.trained.items()}

    def pretraining(size: int, samples: int) -> Any:
        assert (size, samples) == (4, 8)
        return iter([task(5).batch(0, {})])

    held = hooks(context, pretraining=pretraining)
    for parameter in context.trained.values():
        parameter.grad = torch.randn_like(parameter)
    held.add_penalty_gradient()
    moments = second_moments(
        context, projected_layers(context.model.module), [task(5).batch(0, {})]
    )
    for name, moment in moments.items():
        gradient = context.trained[name].grad
        assert gradient is not None
        projected = gradient @ free_directions(moment / torch.linalg.matrix_norm(moment), 0.15)
        torch.testing.assert_close(gradient, projected, atol=1e-4, rtol=0)
        assert torch.equal(context.trained[name], before[name])


@pytest.mark.slow
def test_the_layers_give_earlier_inputs_what_they_gave_and_learn_others(
    toy: Any, task: Any
) -> None:
    train = {"train": ffn_alone, "optimiser": PLAIN}
    first, left = toy.stage(toy.theta(), task(1), GNSP, identity="first", **train)
    plain, _ = toy.stage(first, task(2), identity="plain", **train)
    held, _ = toy.stage(
        first, task(2), GNSP | {"share": 0.05}, identity="held",
        stage_inputs=StageInputs(carried=left), stage=2, **train,
    )  # fmt: skip
    start = dict(first.module.named_parameters())
    for name, moment in left.items():

        def changed(model: Any, name: str = name, moment: torch.Tensor = moment) -> float:
            """‖ΔW X‖² over ‖ΔW‖² ‖X‖², of the inputs of the first task."""
            change = (dict(model.module.named_parameters())[name] - start[name]).detach()
            return float((change @ moment @ change.T).trace() / change.square().sum())

        total = float(moment.trace())
        assert changed(held) < 0.05 * total
        assert changed(held) < changed(plain)
    assert task(2).loss(held) < task(2).loss(first)


@pytest.mark.slow
def test_an_interrupted_second_stage_ends_bit_for_bit_as_a_whole_one(toy: Any, task: Any) -> None:
    first, left = toy.stage(toy.theta(), task(1), GNSP, identity="first", train=ffn_alone)
    given = {"stage_inputs": StageInputs(carried=left), "stage": 2, "train": ffn_alone}
    whole, whole_left = toy.stage(first, task(2), GNSP, identity="whole", **given)
    with pytest.raises(OSError, match="disk"):
        toy.stage(first, task(2), GNSP, identity="broken", fail_at=23, **given)
    resumed, resumed_left = toy.stage(first, task(2), GNSP, identity="broken", **given)
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, resumed.module.state_dict()[name]), name
    assert all(torch.equal(tensor, resumed_left[name]) for name, tensor in whole_left.items())


def test_what_it_cannot_project_is_named(toy: Any) -> None:
    with pytest.raises(InputError, match="projects the gradients of linear layers, and none is"):
        hooks(context_of(toy, "biases"))
    context = context_of(toy)
    name = next(iter(context.trained))
    with pytest.raises(InputError, match="was left the inputs of other layers"):
        hooks(context, carried={name: torch.eye(3)})


def test_attentions_own_layer_whose_inputs_are_not_seen_is_left_out(toy: Any) -> None:
    model = toy.theta()
    select_trained(model.module, "all")
    found = projected_layers(model.module)
    attention = model.module.visual.transformer.resblocks[0].attn
    assert isinstance(attention.out_proj, nn.Linear)
    assert not any("out_proj" in name for name in found)
    assert any("mlp.c_fc" in name for name in found)
