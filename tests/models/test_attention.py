from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fomo_dagster.models import backbones
from fomo_dagster.models.attention import SplitAttention, join_attention, split_attention

SMALL: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "layers": 2, "width": 16, "head_width": 8},
    "text_cfg": {"context_length": 6, "layers": 2, "width": 16, "heads": 2},
}
BATCH, LENGTH, SOURCE, WIDTH, HEADS = 3, 5, 7, 12, 4


def masks(kind: str, length: int) -> Tensor | None:
    shape = (BATCH * HEADS, LENGTH, length) if kind == "each" else (LENGTH, length)
    random = torch.rand(shape, generator=torch.Generator().manual_seed(3))
    if kind == "none":
        return None
    if kind == "causal":
        return torch.full((LENGTH, length), -torch.inf).triu(1)
    blocked = random > 0.6
    blocked[..., 0] = False
    return blocked if kind == "boolean" else random


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("mask", ["none", "causal", "boolean", "each"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("is_self", [False, True])
def test_it_computes_what_multihead_attention_does_with_its_gradients(
    dtype: torch.dtype, mask: str, bias: bool, batch_first: bool, is_self: bool
) -> None:
    torch.manual_seed(1)
    fused = nn.MultiheadAttention(WIDTH, HEADS, bias=bias, batch_first=batch_first, dtype=dtype)
    for parameter in fused.parameters():
        nn.init.normal_(parameter)
    split = SplitAttention(fused)
    source = LENGTH if is_self else SOURCE
    given = [torch.randn(BATCH, n, WIDTH, dtype=dtype) for n in (LENGTH, source, source)]
    if is_self:
        given = given[:1] * 3
    if not batch_first:
        given = [x.transpose(0, 1) for x in given]
    attn_mask = masks(mask, source)
    if attn_mask is not None and attn_mask.is_floating_point():
        attn_mask = attn_mask.to(dtype)
    target = torch.randn_like(given[0])
    outcomes = []
    for attention in (fused, split):
        inputs = [x.detach().clone().requires_grad_() for x in given]
        for parameter in attention.parameters():
            parameter.grad = None
        output, weights = attention(*inputs, need_weights=False, attn_mask=attn_mask)
        assert weights is None
        (output * target).sum().backward()
        if attention is fused:
            gradients = [fused.in_proj_weight.grad]
            gradients += [fused.in_proj_bias.grad] if bias else []
        else:
            layers = (split.query, split.key, split.value)
            gradients = [torch.cat([layer.weight.grad for layer in layers])]
            gradients += [torch.cat([layer.bias.grad for layer in layers])] if bias else []
        gradients.append(attention.out_proj.weight.grad.clone())
        outcomes.append([output.detach(), *gradients, *(x.grad for x in inputs)])
    for expected, found in zip(*outcomes, strict=True):
        scale = float(expected.abs().max())
        torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-6)


@pytest.mark.parametrize("custom_text", [False, True])
@pytest.mark.parametrize("pool_type", ["tok", "avg"])
def test_a_model_is_split_and_joined_again_bit_for_bit(custom_text: bool, pool_type: str) -> None:
    vision = SMALL["vision_cfg"] | {"pool_type": pool_type}
    module = backbones.create(
        SMALL | {"custom_text": custom_text, "vision_cfg": vision}, seed=0
    ).module
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    tokens = torch.randint(1, 49407, (2, 6), generator=torch.Generator().manual_seed(0))
    expected = module.encode_image(images), module.encode_text(tokens)
    random = torch.get_rng_state()
    split_attention(module)
    assert sum(isinstance(part, SplitAttention) for part in module.modules()) == 4
    assert not any(type(part) is nn.MultiheadAttention for part in module.modules())
    for one, other in zip(
        expected, (module.encode_image(images), module.encode_text(tokens)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    join_attention(module)
    assert torch.equal(torch.get_rng_state(), random)
    after = module.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_what_was_learnt_while_split_is_there_when_joined() -> None:
    module = backbones.create(SMALL, seed=0).module
    split_attention(module)
    with torch.no_grad():
        module.visual.transformer.resblocks[1].attn.value.weight.fill_(2.0)
    join_attention(module)
    weight = module.state_dict()["visual.transformer.resblocks.1.attn.in_proj_weight"]
    assert torch.equal(weight[32:], torch.full((16, 16), 2.0))
    assert not torch.equal(weight[16:32], torch.full((16, 16), 2.0))


def test_what_cannot_be_split_is_left_alone() -> None:
    pooler = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2, kdim=4, vdim=4)})
    split_attention(pooler)
    assert type(pooler["attn"]) is nn.MultiheadAttention


def test_weights_of_attention_are_not_to_be_had() -> None:
    split = SplitAttention(nn.MultiheadAttention(8, 2, batch_first=True))
    x = torch.zeros(1, 2, 8)
    with pytest.raises(ValueError, match="need_weights=False"):
        split(x, x, x, need_weights=True)
