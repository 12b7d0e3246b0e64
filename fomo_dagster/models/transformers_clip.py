"""The weights of transformers' CLIPModel and OpenCLIP's, each under the other's names: the same
model, tensor by tensor.

OpenCLIP keeps queries, keys and values of an attention in one matrix, and projections transposed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from fomo_dagster.errors import DataError

_NAMES = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "logit_scale": "logit_scale",
}
_TRANSPOSED = {
    "text_projection.weight": "text_projection",
    "visual_projection.weight": "visual.proj",
}
_TOWERS = {"text": "transformer", "vision": "visual.transformer"}
_PARTS = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_BACK = {theirs: ours for ours, theirs in _NAMES.items()}
_TRANSPOSED_BACK = {theirs: ours for ours, theirs in _TRANSPOSED.items()}
_TOWERS_BACK = {theirs: ours for ours, theirs in _TOWERS.items()}
_PARTS_BACK = {theirs: ours for ours, theirs in _PARTS.items()}
_BLOCK = re.compile(r"(transformer|visual\.transformer)\.resblocks\.(\d+)\.(.+?)[._](weight|bias)")
_LAYER = re.compile(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_POSITIONS = re.compile(r"(text|vision)_model\.embeddings\.position_ids")  # of older versions


def with_openclip_names(weights: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """The tensors of a CLIPModel's state dict by OpenCLIP's names.

    Raises `DataError`, naming the tensor, for one that a CLIPModel does not have, and for queries
    without their keys or values.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if _POSITIONS.fullmatch(name):
            continue
        if name in _NAMES:
            renamed[_NAMES[name]] = tensor
        elif name in _TRANSPOSED:
            renamed[_TRANSPOSED[name]] = tensor.t()
        elif (layer := _LAYER.fullmatch(name)) is not None:
            tower, number, part, kind = layer.groups()
            block = f"{_TOWERS[tower]}.resblocks.{number}"
            if part == "self_attn.q_proj":
                parts = [name.replace("q_proj", f"{which}_proj") for which in "qkv"]
                if missing := [part for part in parts if part not in weights]:
                    raise DataError(f"{origin}: {missing[0]} is missing beside {name}")
                renamed[f"{block}.attn.in_proj_{kind}"] = torch.cat([weights[p] for p in parts])
            elif part in _PARTS:
                renamed[f"{block}.{_PARTS[part]}.{kind}"] = tensor
            elif part not in ("self_attn.k_proj", "self_attn.v_proj"):
                raise DataError(f"{origin}: {name} is no tensor of transformers' CLIPModel")
        else:
            raise DataError(f"{origin}: {name} is no tensor of transformers' CLIPModel")
    return renamed


def with_transformers_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an OpenCLIP model's state dict as a CLIPModel has them: the inverse of
    `with_openclip_names`. A text tower of its own may have its tensors under `text.`.

    Raises `KeyError`, with the tensor's name, for one that a CLIPModel does not have.
    """
    renamed: dict[str, Tensor] = {}
    for full_name, tensor in weights.items():
        name = full_name.removeprefix("text.")
        if name in _BACK:
            renamed[_BACK[name]] = tensor
        elif name in _TRANSPOSED_BACK:
            renamed[_TRANSPOSED_BACK[name]] = tensor.t()
        else:
            renamed |= block_with_transformers_names(name, tensor)
    return renamed


def block_with_transformers_names(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A tensor of one of OpenCLIP's transformer blocks as transformers has it: three, if it is an
    attention's queries, keys and values. Raises `KeyError` as `with_transformers_names` does."""
    block = _BLOCK.fullmatch(name)
    if block is None:
        raise KeyError(name)
    tower, number, part, kind = block.groups()
    layer = f"{_TOWERS_BACK[tower]}_model.encoder.layers.{number}"
    if part == "attn.in_proj":
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {f"{layer}.self_attn.{which}_proj.{kind}": own for which, own in parts}
    if part not in _PARTS_BACK:
        raise KeyError(name)
    return {f"{layer}.{_PARTS_BACK[part]}.{kind}": tensor}
