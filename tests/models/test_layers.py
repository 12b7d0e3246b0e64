"""Features of the layers of a vision tower, against towers that have no further layers."""

import copy

import pytest
import torch
from torch import nn

from fomo_dagster.errors import InputError
from fomo_dagster.models.backbones import create
from fomo_dagster.models.layers import count_layers, encode_layers

pytestmark = pytest.mark.slow

TEXT = {"context_length": 12, "layers": 1, "width": 16, "heads": 2}
PLAIN = {"image_size": 16, "patch_size": 8, "layers": 3, "width": 16, "head_width": 8}
TOWERS = {  # vision_cfg, where its blocks are, and how many there are
    "ViT": (PLAIN, "transformer", "resblocks", 3),
    "ResNet": ({"image_size": 32, "layers": [1, 1, 1, 2], "width": 16}, "", "layer4", 2),
    "timm's ViT": (
        {"timm_model_name": "test_vit", "timm_proj": "linear", "image_size": 160},
        "trunk", "blocks", 6,
    ),
    "timm's ConvNeXt": (
        {"timm_model_name": "test_convnext2", "timm_proj": "linear", "image_size": 64},
        "trunk.stages.3", "blocks", 1,
    ),
}  # fmt: skip


def configuration(tower):
    return {"embed_dim": 16, "vision_cfg": TOWERS[tower][0], "text_cfg": TEXT}


@pytest.mark.parametrize("tower", TOWERS)
def test_a_layer_gives_what_a_tower_that_ends_with_it_gives(tower):
    model = create(configuration(tower), seed=0)
    _, room, blocks, count = TOWERS[tower]
    module = model.module.eval()
    with torch.inference_mode():
        for parameter in module.visual.parameters():  # a ResNet's blocks begin as the identity
            parameter += 0.1 * torch.randn(parameter.shape)
        images = torch.randn(2, 3, model.image_size, model.image_size)
        layers = encode_layers(module, images)
        assert len(layers) == count == count_layers(configuration(tower))
        assert torch.equal(layers[-1], module.encode_image(images))
        for layer, features in enumerate(layers, start=1):
            shorter = copy.deepcopy(module)
            place = shorter.visual.get_submodule(room)
            setattr(place, blocks, getattr(place, blocks)[:layer])
            assert torch.allclose(features, shorter.encode_image(images), atol=1e-5)
        assert not torch.allclose(layers[0], layers[-1]) or count == 1
        assert torch.equal(encode_layers(module, images), layers)  # no hook was left


def test_a_tower_without_known_blocks_is_refused_by_name():
    module = create(configuration("ViT"), seed=0).module
    module.visual = nn.Sequential(nn.Flatten(), nn.Linear(768, 16))
    with pytest.raises(InputError, match="the vision tower, Sequential, cannot give"):
        encode_layers(module, torch.zeros(2, 3, 16, 16))
