"""The image features that each block of a vision tower would give if it were the last.

The output of a block goes through all that follows the last one (pooling, norm, projection), as in
a logit lens. Blocks whose output does not fit there, such as those of a ResNet's earlier stages,
are not covered.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from fomo_dagster.errors import InputError
from fomo_dagster.models.backbones import Architecture, Clip, meta_model
from fomo_dagster.models.operations import as_fake, counted_in_full, fake_tensors

_BLOCKS = (
    "transformer.resblocks",  # OpenCLIP's ViT
    "layer4",  # OpenCLIP's ResNet
    "trunk.blocks",  # timm's ViT, EVA, ViTamin
    "trunk.stages.-1.blocks",  # timm's ConvNeXt, FastViT
    "trunk.layers.-1.blocks",  # timm's Swin
    "trunk.layer4",  # timm's ResNet
)
"""Where towers have blocks that fit before what follows the last."""


def encode_layers(module: Clip, images: Tensor) -> Tensor:
    """Image features of each block, the last one's as `encode_image` gives them.

    images: (B, 3, H, W); gives (L, B, D), not normalised. It holds the outputs of all blocks for
    the batch. Raises `InputError`, naming the tower, if it has no such blocks.
    """
    blocks = _blocks_of(module.visual)
    outputs: list[Tensor] = []
    with ExitStack() as hooks:
        for block in blocks:
            hooks.callback(block.register_forward_hook(_keeping(outputs)).remove)
        features = [module.encode_image(images)]
    if len(outputs) != len(blocks) or any(
        not isinstance(output, Tensor) or output.shape != outputs[-1].shape for output in outputs
    ):
        raise _refused(module.visual, "its blocks do not have outputs of one shape")
    for output in reversed(outputs[:-1]):
        # What precedes the last block's output is computed of one image, for nothing.
        with ExitStack() as hooks:
            hooks.callback(blocks[-1].register_forward_hook(_giving(output)).remove)
            features.append(module.encode_image(images[:1]))
    return torch.stack(features[::-1])


def count_layers(architecture: Architecture) -> int:
    """The L of `encode_layers`, from a model without data. Raises as that and `meta_model` do, and
    whatever a backbone's code raises if fake tensors cannot run it."""
    model = meta_model(_without_text_tower_of_files(architecture))
    with counted_in_full(), torch.device("cpu"), fake_tensors():
        module = as_fake(model).module.eval().requires_grad_(False)
        images = torch.zeros(2, 3, model.image_size, model.image_size)
        return len(encode_layers(module, images))


def _without_text_tower_of_files(architecture: Architecture) -> Architecture:
    """With another text tower, where files say what it is."""
    described: dict[str, Any] | None = (
        open_clip.get_model_config(architecture) if isinstance(architecture, str) else architecture
    )
    if not described or not described["text_cfg"].get("hf_model_name"):
        return architecture
    return {**described, "text_cfg": {}}


def _blocks_of(visual: nn.Module) -> list[nn.Module]:
    for path in _BLOCKS:
        found: Any = visual
        for name in path.split("."):
            is_place = name == "-1" and isinstance(found, nn.Sequential | nn.ModuleList)
            found = found[-1] if is_place and len(found) else getattr(found, name, None)
        if isinstance(found, nn.Sequential | nn.ModuleList) and len(found):
            return list(found)
    raise _refused(visual, "it has no blocks at a place that is known")


def _refused(visual: nn.Module, why: str) -> InputError:
    tower = type(getattr(visual, "trunk", visual)).__name__
    return InputError(
        f"the vision tower, {tower}, cannot give features of its layers: {why}. Leave out "
        "evaluation.layer_temperature"
    )


def _keeping(outputs: list[Tensor]) -> Callable[..., None]:
    def keep(_module: nn.Module, _given: Any, output: Tensor) -> None:
        outputs.append(output)

    return keep


def _giving(output: Tensor) -> Callable[..., Tensor]:
    def give(*_: Any) -> Tensor:
        return output

    return give
