from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fomo_dagster.errors import InputError
from fomo_dagster.methods.loss.contrastive import contrastive_loss
from fomo_dagster.methods.loss.declaration import ClipLoss
from fomo_dagster.methods.preservation.hooks import EmbeddedBatch
from fomo_dagster.methods.trained_parameters.selecting import select_trained
from fomo_dagster.models import backbones
from fomo_dagster.training.gradcache import GradientPass

SMALL: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 4, "layers": 2, "width": 16, "head_width": 8},
    "text_cfg": {"context_length": 6, "layers": 1, "width": 16, "heads": 2},
}


class Batch(NamedTuple):
    images: Tensor
    tokens: Tensor
    counts: dict[str, int]


def contrastive(embedded: EmbeddedBatch) -> tuple[Tensor, None]:
    return contrastive_loss(ClipLoss())(embedded.images, embedded.texts, embedded.logit_scale), None


def gradients(
    configuration: dict[str, Any],
    micro_batch_size: int | None,
    *,
    dtype: torch.dtype = torch.float64,
    train: str = "all",
    size: int = 10,
    calls: list[str] | None = None,
) -> tuple[float, dict[str, Tensor]]:
    module = backbones.create(configuration, seed=1).module.to(dtype)
    trained = select_trained(module, train)
    if calls is not None:
        for tower in ("encode_image", "encode_text"):
            encode = getattr(module, tower)

            def counted(x: Tensor, encode: Any = encode, tower: str = tower) -> Tensor:
                calls.append(tower)
                return encode(x)  # type: ignore[no-any-return]

            object.__setattr__(module, tower, counted)
    random = torch.Generator().manual_seed(2)
    images = torch.randn(size, 3, 16, 16, generator=random).to(dtype)
    tokens = torch.randint(1, 49407, (size, 6), generator=random)
    loss = GradientPass(
        module=module,
        device=torch.device("cpu"),
        normalise=lambda pixels: pixels.float(),
        autocast=nullcontext,
        micro_batch_size=micro_batch_size,
    ).backward(
        Batch(images, tokens, {"update": len(images)}), 7, contrastive, lambda value: 4 * value
    )
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert found.keys() == trained.keys()
    return loss[0].item(), found


@pytest.mark.parametrize("train", ["all", "locked_image", "locked_text"])
@pytest.mark.parametrize("micro_batch_size", [1, 3, 5, 9])
def test_micro_batches_have_the_gradient_of_the_whole_batch(
    micro_batch_size: int, train: str
) -> None:
    loss, whole = gradients(SMALL, None, train=train)
    pieces_loss, pieces = gradients(SMALL, micro_batch_size, train=train)
    assert pieces_loss == pytest.approx(loss, rel=1e-12)
    for name, expected in whole.items():
        torch.testing.assert_close(pieces[name], expected, rtol=1e-10, atol=1e-10)


def test_in_single_precision_they_agree_to_its_rounding() -> None:
    _, whole = gradients(SMALL, None, dtype=torch.float32)
    _, pieces = gradients(SMALL, 3, dtype=torch.float32)
    for name, expected in whole.items():
        torch.testing.assert_close(pieces[name], expected, rtol=1e-5, atol=1e-5)


def test_the_gradient_is_the_one_of_the_formula() -> None:
    """The whole-batch gradient along a random direction, against a finite difference of the loss
    written out, times the loss scale."""
    _, found = gradients(SMALL, None)
    module = backbones.create(SMALL, seed=1).module.double().train()
    random = torch.Generator().manual_seed(2)
    images = torch.randn(10, 3, 16, 16, generator=random).double()
    tokens = torch.randint(1, 49407, (10, 6), generator=random)

    def loss() -> float:
        with torch.no_grad():
            left, right = module.encode_image(images), module.encode_text(tokens)
            left, right = left / left.norm(dim=1)[:, None], right / right.norm(dim=1)[:, None]
            logits = module.logit_scale.exp() * left @ right.T
            rows, columns = logits.log_softmax(dim=1), logits.log_softmax(dim=0)
            return float(-(rows.diagonal().mean() + columns.diagonal().mean()) / 2)

    direction = {name: torch.randn_like(p) for name, p in module.named_parameters()}
    values = []
    for sign in (1, -1):
        for name, parameter in module.named_parameters():
            parameter.data += sign * 1e-6 * direction[name]
        values.append(loss())
        for name, parameter in module.named_parameters():
            parameter.data -= sign * 1e-6 * direction[name]
    slope = sum(float((found[name] * direction[name]).sum()) for name in direction)
    assert slope == pytest.approx(4 * (values[0] - values[1]) / 2e-6, rel=1e-5)


def test_both_passes_drop_the_same_patches() -> None:
    """A batch that is one micro-batch and one that is cut have different draws, so the check is
    against the loss's own gradient: with the draws of a piece repeated, a second call agrees."""
    dropping = SMALL | {"vision_cfg": SMALL["vision_cfg"] | {"patch_dropout": 0.5}}
    module = backbones.create(dropping, seed=1).module.double().train()
    random = torch.Generator().manual_seed(2)
    images = torch.randn(4, 3, 16, 16, generator=random).double()
    tokens = torch.randint(1, 49407, (4, 6), generator=random)
    outputs: list[Tensor] = []
    encode = module.encode_image

    def watched(x: Tensor) -> Tensor:
        outputs.append(encode(x))
        return outputs[-1]

    object.__setattr__(module, "encode_image", watched)
    GradientPass(
        module=module,
        device=torch.device("cpu"),
        normalise=lambda pixels: pixels.float(),
        autocast=nullcontext,
        micro_batch_size=2,
    ).backward(Batch(images, tokens, {"update": len(images)}), 7, contrastive)
    first, second, first_again, second_again = outputs
    assert torch.equal(first, first_again)
    assert torch.equal(second, second_again)
    with torch.no_grad():
        assert not torch.equal(first, encode(images[:2]))  # the patches are drawn indeed


def test_a_locked_tower_is_not_gone_through_again() -> None:
    calls: list[str] = []
    gradients(SMALL, 5, train="locked_image", calls=calls)
    assert (calls.count("encode_image"), calls.count("encode_text")) == (2, 4)


def test_a_batch_norm_that_learns_has_no_micro_batches() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = nn.BatchNorm1d(4)

    def make(module: nn.Module) -> GradientPass:
        return GradientPass(
            module=module,
            device=torch.device("cpu"),
            normalise=lambda pixels: pixels.float(),
            autocast=nullcontext,
            micro_batch_size=2,
        )

    with pytest.raises(InputError, match=r"micro_batch_size is 2, .* batch norm \(visual\)"):
        make(Normed())
    make(Normed().eval())
