"""Attention with separate layers for query, key and value projections.

`nn.MultiheadAttention` keeps the three in one parameter (`in_proj_weight`) that its forward pass
reads directly, so wrappers of linear layers cannot reach them. A model is split before such a
wrapping and joined after it. The weights are the same numbers in both forms.

Covers what OpenCLIP's transformers use: query, key and value of one width, without added key or
value biases. Other attention (the fused layer of its custom blocks, a pooler over another width,
timm's) stays as it is.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional


class SplitAttention(nn.Module):
    """Computes what `nn.MultiheadAttention` does, up to the rounding of its kernels, with four
    linear layers: query, key, value (each (D, D)) and out_proj."""

    def __init__(self, fused: nn.MultiheadAttention) -> None:
        """Takes over `fused`'s weights (copies for the three, `out_proj` itself)."""
        super().__init__()
        width = fused.embed_dim
        self.heads = fused.num_heads
        self.dropout = fused.dropout
        self.batch_first = fused.batch_first
        self.query, self.key, self.value = (
            nn.utils.skip_init(  # type: ignore[no-untyped-call]
                nn.Linear, width, width, bias=fused.in_proj_bias is not None,
                device=fused.in_proj_weight.device, dtype=fused.in_proj_weight.dtype,
            )
            for _ in range(3)
        )  # fmt: skip
        with torch.no_grad():
            for place, layer in enumerate((self.query, self.key, self.value)):
                layer.weight.copy_(fused.in_proj_weight.chunk(3)[place])
                layer.weight.requires_grad_(fused.in_proj_weight.requires_grad)
                if fused.in_proj_bias is not None:
                    layer.bias.copy_(fused.in_proj_bias.chunk(3)[place])
                    layer.bias.requires_grad_(fused.in_proj_bias.requires_grad)
        self.out_proj = fused.out_proj
        self.train(fused.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Attend: query (B, L, D) or, without `batch_first`, (L, B, D); key and value likewise with
        S in place of L. `attn_mask`, (L, S) or (B · heads, L, S): True where attention is
        forbidden, or what is added to the logits.

        Returns the output in the form of `query`, and None: weights are never returned.
        """
        if need_weights:
            raise ValueError("split attention gives no attention weights: need_weights=False")
        query, key, value = self.query(query), self.key(key), self.value(value)
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        batch, length, width = query.shape
        query, key, value = (
            x.reshape(batch, -1, self.heads, width // self.heads).transpose(1, 2)
            for x in (query, key, value)
        )
        if attn_mask is not None:
            if attn_mask.dtype == torch.bool:
                attn_mask = ~attn_mask  # of which True is where one may look
            if attn_mask.ndim == 3:
                attn_mask = attn_mask.reshape(batch, self.heads, *attn_mask.shape[1:])
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask, self.dropout if self.training else 0.0
        )  # (B, heads, L, D / heads)
        output = self.out_proj(attended.transpose(1, 2).reshape(batch, length, width))
        return (output if self.batch_first else output.transpose(0, 1)), None

    def fused(self) -> nn.MultiheadAttention:
        """The `nn.MultiheadAttention` with these weights."""
        layers = (self.query, self.key, self.value)
        weight = torch.cat([layer.weight.detach() for layer in layers])
        has_bias = self.query.bias is not None
        with torch.random.fork_rng(devices=[]):  # its weights are drawn before they are replaced
            fused = nn.MultiheadAttention(
                weight.shape[1], self.heads, dropout=self.dropout, bias=has_bias,
                batch_first=self.batch_first, device=weight.device, dtype=weight.dtype,
            )  # fmt: skip
        with torch.no_grad():
            fused.in_proj_weight.copy_(weight)
            fused.in_proj_weight.requires_grad_(self.query.weight.requires_grad)
            if has_bias:
                fused.in_proj_bias.copy_(torch.cat([layer.bias.detach() for layer in layers]))
                fused.in_proj_bias.requires_grad_(self.query.bias.requires_grad)
        fused.out_proj = self.out_proj
        return fused.train(self.training)


def split_attention(module: nn.Module) -> None:
    """Split every attention of the module, in place, whose projections are fused."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if _can_be_split(child):
                setattr(parent, name, SplitAttention(child))


def join_attention(module: nn.Module) -> None:
    """Undo `split_attention`, in place; the weights are what they have become since."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SplitAttention):
                setattr(parent, name, child.fused())


def _can_be_split(part: nn.Module) -> TypeGuard[nn.MultiheadAttention]:
    return (
        type(part) is nn.MultiheadAttention
        and part._qkv_same_embed_dim
        and part.bias_k is None
        and not part.add_zero_attn
    )
