"""The weights of OpenCLIP's SigLIP models as transformers' SiglipModel has them, tensor by tensor.

The image tower is a vision transformer of timm's that ends with an attention over its patches.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from fomo_dagster.models.transformers_clip import block_with_transformers_names

_TRUNK = "visual.trunk."
_TEXT_NAMES = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection.weight": "text_model.head.weight",
    "text_projection.bias": "text_model.head.bias",
}
_VISION_NAMES = {
    "patch_embed.proj.weight": "vision_model.embeddings.patch_embedding.weight",
    "patch_embed.proj.bias": "vision_model.embeddings.patch_embedding.bias",
    "norm.weight": "vision_model.post_layernorm.weight",
    "norm.bias": "vision_model.post_layernorm.bias",
    "attn_pool.latent": "vision_model.head.probe",
    "attn_pool.proj.weight": "vision_model.head.attention.out_proj.weight",
    "attn_pool.proj.bias": "vision_model.head.attention.out_proj.bias",
    "attn_pool.norm.weight": "vision_model.head.layernorm.weight",
    "attn_pool.norm.bias": "vision_model.head.layernorm.bias",
    "attn_pool.mlp.fc1.weight": "vision_model.head.mlp.fc1.weight",
    "attn_pool.mlp.fc1.bias": "vision_model.head.mlp.fc1.bias",
    "attn_pool.mlp.fc2.weight": "vision_model.head.mlp.fc2.weight",
    "attn_pool.mlp.fc2.bias": "vision_model.head.mlp.fc2.bias",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")
_PARTS = {
    "norm1": "layer_norm1",
    "attn.proj": "self_attn.out_proj",
    "norm2": "layer_norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def with_transformers_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an OpenCLIP model's state dict as a SiglipModel has them. A bias that OpenCLIP
    does not have is zero.

    Raises `KeyError`, with the tensor's name, for one that a SiglipModel does not have.
    """
    renamed: dict[str, Tensor] = {"logit_bias": torch.zeros(1)}
    for name, tensor in weights.items():
        if name in ("logit_scale", "logit_bias"):
            renamed[name] = tensor.reshape(1)
        elif name.startswith(_TRUNK):
            renamed |= _of_image_tower(name.removeprefix(_TRUNK), tensor)
        elif name.removeprefix("text.") in _TEXT_NAMES:
            renamed[_TEXT_NAMES[name.removeprefix("text.")]] = tensor
        elif name == "text.text_projection":  # without a bias it is no linear layer
            renamed["text_model.head.weight"] = tensor.t()
            renamed["text_model.head.bias"] = torch.zeros(tensor.shape[1])
        else:
            renamed |= block_with_transformers_names(name.removeprefix("text."), tensor)
    for kind in ("weight", "bias"):  # queries come apart from keys and values
        query, others = (renamed.pop(f"{part}.{kind}") for part in ("attn_pool.q", "attn_pool.kv"))
        renamed[f"vision_model.head.attention.in_proj_{kind}"] = torch.cat([query, others])
    return renamed


def _of_image_tower(name: str, tensor: Tensor) -> dict[str, Tensor]:
    if name in _VISION_NAMES:
        return {_VISION_NAMES[name]: tensor}
    if name == "pos_embed":
        return {"vision_model.embeddings.position_embedding.weight": tensor[0]}
    if name.startswith(("attn_pool.q.", "attn_pool.kv.")):
        return {name: tensor}
    block = _BLOCK.fullmatch(name)
    if block is None:
        raise KeyError(_TRUNK + name)
    number, part, kind = block.groups()
    layer = f"vision_model.encoder.layers.{number}"
    if part == "attn.qkv":
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {f"{layer}.self_attn.{which}_proj.{kind}": own for which, own in parts}
    if part not in _PARTS:
        raise KeyError(_TRUNK + name)
    return {f"{layer}.{_PARTS[part]}.{kind}": tensor}
