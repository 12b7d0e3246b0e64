"""OpenCLIP models as transformers' CLIPModel or SiglipModel, where there is an equivalent.

What a model is made of is read from its modules, not from its configuration: a tower's activation,
for example, is what its blocks compute. transformers is imported where it is used, since that takes
seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import open_clip
import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, TextTransformer
from timm.layers.attention_pool import AttentionPoolLatent
from timm.models.vision_transformer import Block
from timm.models.vision_transformer import VisionTransformer as TimmTransformer
from torch import Tensor, nn

from fomo_dagster.errors import InputError
from fomo_dagster.models import transformers_clip, transformers_siglip
from fomo_dagster.models.backbones import Model

_TANH = "gelu_pytorch_tanh"


class _OtherwiseError(Exception):
    """What the model is that the equivalent is not, as a clause."""


def equivalent(model: Model, architecture: str) -> Any:
    """A CLIPModel or SiglipModel with the model's weights, on the CPU, in evaluation mode.

    architecture: what messages call it. Raises `InputError`, with what both kinds cannot do, if the
    model is neither.
    """
    reasons = []
    for kind, build in (("CLIPModel", _as_clip), ("SiglipModel", _as_siglip)):
        try:
            return build(model)
        except _OtherwiseError as reason:
            reasons.append(f"it is no {kind}, since {reason}")
    raise InputError(
        f"transformers has no equivalent of the architecture {architecture}: "
        f"{'; '.join(reasons)}. The forms openclip and onnx work"
    )


def features(module: Any, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """What transformers' model gives for N images and M texts: (N, D) and (M, D), unnormalised."""
    with torch.inference_mode():
        found = module.get_image_features(pixel_values=images), module.get_text_features(tokens)
    pooled = [one if isinstance(one, Tensor) else one.pooler_output for one in found]
    return pooled[0], pooled[1]


def _as_clip(model: Model) -> Any:
    from transformers import CLIPConfig, CLIPModel

    visual, text = model.module.visual, _text_tower(model.module)
    is_vit = isinstance(visual, open_clip.transformer.VisionTransformer)
    _require(is_vit, f"its image tower is a {type(visual).__name__}")
    by_class = visual.attn_pool is None and visual.pool_type == "tok"
    _require(by_class, "its image features are not those of a class token")
    _require(not visual.final_ln_after_pool, "its last norm comes after the pooling")
    _require(isinstance(visual.ln_pre, nn.LayerNorm), "it normalises nothing before its blocks")
    _require(visual.proj is not None, "its image features have no projection")
    _require(text.attn_mask is not None, "its text tower sees texts whole")
    pooled = text.pool_type in ("argmax", "eos")
    _require(pooled, f"its text features are pooled by {text.pool_type!r}, not at a text's end")
    _require(isinstance(text.projection, Tensor), "its text projection has a bias, or is not there")
    height, width = visual.patch_size
    _require(height == width, f"its patches are of {height}×{width}")
    config = CLIPConfig(
        text_config=_text_sizes(text)
        | {"projection_dim": text.projection.shape[1], "eos_token_id": _end(model, text)},
        vision_config=_sizes(_blocks(visual.transformer.resblocks), [visual.ln_pre, visual.ln_post])
        | {"projection_dim": visual.proj.shape[1]}
        | {"image_size": model.image_size, "patch_size": height},
        projection_dim=text.projection.shape[1],
    )
    # The bias of similarities, if it has one, changes neither features nor the softmax over them.
    weights = {k: v for k, v in model.module.state_dict().items() if k != "logit_bias"}
    weights["logit_scale"] = weights["logit_scale"].reshape(())
    return _filled(CLIPModel, config, weights, transformers_clip.with_transformers_names)


def _as_siglip(model: Model) -> Any:
    from transformers import SiglipConfig, SiglipModel

    visual, text = model.module.visual, _text_tower(model.module)
    trunk = getattr(visual, "trunk", visual)
    is_vit = isinstance(visual, TimmModel) and type(trunk) is TimmTransformer
    _require(is_vit, f"its image tower is a {type(trunk).__name__}, none of timm's ViTs")
    pool = trunk.attn_pool
    by_attention = (
        isinstance(pool, AttentionPoolLatent)
        and pool.latent_len == 1
        and pool.pos_embed is None
        and isinstance(pool.norm, nn.LayerNorm)
        and pool.mlp is not None
    )
    _require(by_attention, "its image features are not those of SigLIP's attention over patches")
    _require(trunk.num_prefix_tokens == 0, "its image tower has tokens beside the patches")
    none = _all_identities(trunk.norm_pre, trunk.fc_norm, trunk.head, pool.q_norm, pool.k_norm)
    plain = none and not list(visual.head.parameters())
    _require(plain, "its image tower has norms, or a projection, that SigLIP's has not")
    _require(text.attn_mask is None, "its text tower does not see texts whole")
    _require(not text.pads_masked, "its text tower does not see the padding of texts")
    _require(text.pool_type == "last", f"its text features are pooled by {text.pool_type!r}")
    _require(text.projection is not None, "its text features have no projection")
    vision = _sizes(_timm_blocks(trunk.blocks), [trunk.norm, pool.norm])
    in_pool = {
        "num_attention_heads": pool.num_heads, "intermediate_size": pool.mlp.fc1.out_features,
        "hidden_act": _activation(pool.mlp.act),
    }  # fmt: skip
    same = all(vision[key] == value for key, value in in_pool.items())
    _require(same, "its attention over patches has other sizes than its blocks")
    height, width = trunk.patch_embed.patch_size
    _require(height == width, f"its patches are of {height}×{width}")
    projection = text.projection
    size = projection.shape[1] if isinstance(projection, Tensor) else projection.out_features
    config = SiglipConfig(
        # Nothing in the model reads these, and their defaults are of another vocabulary.
        text_config=_text_sizes(text)
        | {"projection_size": size}
        | dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
        vision_config=vision | {"image_size": model.image_size, "patch_size": height},
    )
    weights = dict(model.module.state_dict())
    return _filled(SiglipModel, config, weights, transformers_siglip.with_transformers_names)


class _TextTower:
    """OpenCLIP's text tower, whether it is the model itself or a part of it."""

    def __init__(self, tower: Any, pool_type: str, end: int, projection: Any) -> None:
        self.blocks = tower.transformer.resblocks
        self.attn_mask, self.pool_type, self.end = tower.attn_mask, pool_type, end
        self.projection, self.norm = projection, tower.ln_final
        self.length, self.vocabulary = tower.positional_embedding.shape[0], tower.vocab_size
        self.pads_masked = getattr(tower, "use_pad_mask", False)


def _text_tower(module: Any) -> _TextTower:
    if type(module) is open_clip.CLIP:
        return _TextTower(module, module.text_pool_type, module.text_eos_id, module.text_projection)
    _require(type(module) is open_clip.CustomTextCLIP, f"it is a {type(module).__name__}")
    tower = module.text
    is_own = type(tower) is TextTransformer
    _require(is_own, f"its text tower is a {type(tower).__name__}, none of OpenCLIP's own")
    _require(tower.cls_emb is None, "its text tower has a class token")
    return _TextTower(tower, tower.pool_type, tower.eos_id, tower.text_projection)


def _end(model: Model, text: _TextTower) -> int:
    """CLIPConfig's eos_token_id. With 2 the model looks for the highest token, as OpenCLIP does."""
    if text.pool_type == "eos":
        _require(text.end != 2, "its texts end with the token 2")
        return int(text.end)
    tokenize = model.tokenize
    return tokenize.eot_token_id if isinstance(tokenize, open_clip.SimpleTokenizer) else 2


def _text_sizes(text: _TextTower) -> dict[str, Any]:
    return {
        **_sizes(_blocks(text.blocks), [text.norm]),
        "vocab_size": text.vocabulary, "max_position_embeddings": text.length,
    }  # fmt: skip


def _blocks(blocks: Iterable[Any]) -> list[dict[str, Any]]:
    """What transformers' configurations say of OpenCLIP's transformer blocks."""
    found = []
    for block in blocks:
        is_plain = type(block) is ResidualAttentionBlock
        _require(is_plain, f"its blocks are of the kind {type(block).__name__}")
        _require(_all_identities(block.ls_1, block.ls_2), "its blocks scale what they add")
        found.append(
            {
                "hidden_size": block.attn.embed_dim,
                "num_attention_heads": block.attn.num_heads,
                "intermediate_size": block.mlp.c_fc.out_features,
                "hidden_act": _activation(block.mlp.gelu),
                "norms": (block.ln_1, block.ln_2),
            }
        )
    return found


def _timm_blocks(blocks: Iterable[Any]) -> list[dict[str, Any]]:
    found = []
    for block in blocks:
        _require(type(block) is Block, f"its blocks are of the kind {type(block).__name__}")
        scales = (block.ls1, block.ls2, block.attn.q_norm, block.attn.k_norm, block.attn.norm)
        _require(_all_identities(*scales), "its blocks scale or normalise what others do not")
        found.append(
            {
                "hidden_size": block.attn.qkv.in_features,
                "num_attention_heads": block.attn.num_heads,
                "intermediate_size": block.mlp.fc1.out_features,
                "hidden_act": _activation(block.mlp.act),
                "norms": (block.norm1, block.norm2),
            }
        )
    return found


def _all_identities(*modules: nn.Module) -> bool:
    return all(isinstance(module, nn.Identity) for module in modules)


def _sizes(blocks: list[dict[str, Any]], norms: list[nn.Module]) -> dict[str, Any]:
    """The values that all blocks share, as a configuration has them."""
    every = [*norms, *(norm for block in blocks for norm in block.pop("norms"))]
    _require(all(isinstance(norm, nn.LayerNorm) for norm in every), "its norms are no layer norms")
    epsilons = {norm.eps for norm in every if isinstance(norm, nn.LayerNorm)}
    _require(len(epsilons) == 1, "its norms differ in their epsilon")
    _require(all(block == blocks[0] for block in blocks), "its blocks differ in size")
    return {**blocks[0], "num_hidden_layers": len(blocks), "layer_norm_eps": epsilons.pop()}


def _activation(module: nn.Module) -> str:
    if isinstance(module, QuickGELU):
        return "quick_gelu"
    if isinstance(module, nn.GELU):
        return "gelu" if module.approximate == "none" else _TANH
    kind = type(module).__name__  # timm has classes of its own
    _require(kind in ("GELU", "GELUTanh"), f"its activation is {kind}")
    return "gelu" if kind == "GELU" else _TANH


def _filled(
    kind: Any,
    config: Any,
    weights: dict[str, Tensor],
    renamed_by: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
) -> Any:
    """The model with the weights under their other names; every tensor has its counterpart."""
    try:
        renamed = renamed_by(weights)
    except KeyError as error:
        raise _OtherwiseError(f"it has the tensor {error.args[0]}") from error
    module = kind(config)
    expected = module.state_dict()
    for name, tensor in expected.items():
        _require(name in renamed, f"it has no tensor for {name}")
        shape = tuple(renamed[name].shape)
        _require(shape == tensor.shape, f"its tensor for {name} has the shape {shape}")
    for name in renamed:
        _require(name in expected, f"it has a tensor for {name}")
    module.load_state_dict({name: tensor.detach().float() for name, tensor in renamed.items()})
    return module.eval()


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _OtherwiseError(otherwise)
