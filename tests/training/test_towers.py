"""Checkpointing and compilation leave gradients as they are, and say where they cannot be had."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from fomo_dagster.errors import InputError
from fomo_dagster.methods.loss.contrastive import contrastive_loss
from fomo_dagster.methods.loss.declaration import ClipLoss
from fomo_dagster.methods.preservation.hooks import EmbeddedBatch
from fomo_dagster.methods.trained_parameters.selecting import select_trained
from fomo_dagster.models import backbones
from fomo_dagster.training.gradcache import GradientPass
from fomo_dagster.training.precision import matrix_products
from fomo_dagster.training.towers import checkpoint_gradients, compiler_for

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {
        "image_size": 16, "patch_size": 4, "layers": 2, "width": 16, "head_width": 8,
        "patch_dropout": 0.5,  # so that the towers draw at random
    },
    "text_cfg": {"context_length": 6, "layers": 2, "width": 16, "heads": 2},
}  # fmt: skip


class Batch(NamedTuple):
    images: Tensor
    tokens: Tensor
    counts: dict[str, int]


def gradients(
    *, checkpointed: bool = False, compiled: bool = False, micro_batch_size: int | None = None
) -> dict[str, Tensor]:
    module = backbones.create(SMALL, seed=1).module
    names = module.state_dict().keys()
    trained = select_trained(module, "all")
    if checkpointed:
        checkpoint_gradients(module)
    random = torch.Generator().manual_seed(2)
    images = torch.randn(6, 3, 16, 16, generator=random)
    tokens = torch.randint(1, 49407, (6, 6), generator=random)
    loss = contrastive_loss(ClipLoss())

    def objective(embedded: EmbeddedBatch) -> tuple[Tensor, None]:
        return loss(embedded.images, embedded.texts, embedded.logit_scale), None

    GradientPass(
        module=module, device=CPU, normalise=lambda pixels: pixels, autocast=nullcontext,
        micro_batch_size=micro_batch_size, compile_tower=compiler_for(CPU) if compiled else None,
    ).backward(Batch(images, tokens, {"update": 6}), 7, objective)  # fmt: skip
    assert module.state_dict().keys() == names
    assert dict(module.named_parameters()).keys() == trained.keys()
    return {name: p.grad for name, p in trained.items() if p.grad is not None}


@pytest.mark.parametrize("micro_batch_size", [None, 4])
def test_activations_that_are_computed_again_give_the_same_gradients_bit_for_bit(
    micro_batch_size: int | None,
) -> None:
    plain = gradients(micro_batch_size=micro_batch_size)
    found = gradients(checkpointed=True, micro_batch_size=micro_batch_size)
    assert found.keys() == plain.keys()
    for name, gradient in plain.items():
        assert torch.equal(found[name], gradient), name


@pytest.mark.slow
def test_a_compiled_towers_gradients_differ_by_rounding_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compile_graph = torch.compile

    def quickly(function: Any, *, dynamic: bool, options: Any = None) -> Any:
        """All of it but the code of its kernels, which takes a minute to make."""
        return compile_graph(function, dynamic=dynamic, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", quickly)
    plain, found = gradients(), gradients(compiled=True)
    assert found.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=2e-6)


def test_an_image_tower_without_checkpointing_is_refused() -> None:
    resnet = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    module = backbones.create(SMALL | {"vision_cfg": resnet}, seed=0).module
    with pytest.raises(InputError, match=r"gradient_checkpointing .* \(ModifiedResNet\) has none"):
        checkpoint_gradients(module)


@pytest.mark.slow
def test_without_a_compiler_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    with pytest.raises(InputError, match=r"execution.compile .* does not work for cpu"):
        compiler_for(CPU)


def test_tf32_is_cudas() -> None:
    refused = pytest.raises(InputError, match=r"precision is tf32, .* the device is cpu")
    with refused, matrix_products("tf32", CPU):
        raise AssertionError
    for precision in ("fp32", "bf16", "fp16"):
        with matrix_products(precision, CPU):
            assert torch.get_float32_matmul_precision() == "highest"
