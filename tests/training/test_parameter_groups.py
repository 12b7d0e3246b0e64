"""Which parameters decay, and times what each takes the learning rate."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.methods.trained_parameters.selecting import select_trained
from fomo_dagster.models import backbones
from fomo_dagster.models.backbones import Clip
from fomo_dagster.training.depth import distances_from_the_end
from fomo_dagster.training.parameter_groups import grouped

TEXT = {"context_length": 6, "width": 16, "heads": 2, "layers": 2}
VIT = {"image_size": 16, "patch_size": 8, "layers": 3, "width": 16, "head_width": 8}
RESNET = {"image_size": 32, "layers": [1, 2, 1, 1], "width": 8, "patch_size": None}
TIMM = {
    "image_size": 32, "timm_model_name": "convnext_atto", "timm_model_pretrained": False,
    "timm_pool": "", "timm_proj": "linear",
}  # fmt: skip


def clip(vision: dict[str, Any] = VIT, **further: Any) -> Clip:
    configuration = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": TEXT, **further}
    return backbones.create(configuration, seed=0).module


def distances(module: Clip) -> dict[str, int]:
    return distances_from_the_end(module, [name for name, _ in module.named_parameters()])


@pytest.mark.parametrize("custom_text", [False, True])
def test_a_transformers_layers_are_its_embeddings_its_blocks_and_what_follows(
    custom_text: bool,
) -> None:
    module = clip(custom_text=custom_text, init_logit_bias=-10)
    found = distances(module)
    assert found.keys() == {name for name, _ in module.named_parameters()}
    text = "text." if custom_text else ""
    expected = {
        "visual.class_embedding": 4, "visual.positional_embedding": 4, "visual.conv1.weight": 4,
        "visual.ln_pre.bias": 4,
        "visual.transformer.resblocks.0.attn.in_proj_weight": 3,
        "visual.transformer.resblocks.2.mlp.c_fc.bias": 1,
        "visual.ln_post.weight": 0, "visual.proj": 0,
        f"{text}token_embedding.weight": 3, f"{text}positional_embedding": 3,
        f"{text}transformer.resblocks.0.ln_1.weight": 2,
        f"{text}transformer.resblocks.1.ln_1.weight": 1,
        f"{text}ln_final.weight": 0, f"{text}text_projection": 0,
        "logit_scale": 0, "logit_bias": 0,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_every_residual_block_of_a_resnet_is_a_layer() -> None:
    found = distances(clip(RESNET))
    expected = {
        "visual.conv1.weight": 6, "visual.bn3.bias": 6, "visual.layer1.0.conv1.weight": 5,
        "visual.layer2.0.downsample.0.weight": 4, "visual.layer2.1.bn2.weight": 3,
        "visual.layer3.0.conv2.weight": 2, "visual.layer4.0.conv3.weight": 1,
        "visual.attnpool.positional_embedding": 0, "visual.attnpool.c_proj.weight": 0,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_a_tower_of_timm_is_divided_by_timm() -> None:
    module = clip(TIMM)
    found = distances(module)
    assert found.keys() >= {name for name, _ in module.named_parameters()}
    blocks = [2, 2, 6, 2]  # of ConvNeXt's stages
    of_blocks = [
        found[f"visual.trunk.stages.{stage}.blocks.{block}.conv_dw.weight"]
        for stage, count in enumerate(blocks)
        for block in range(count)
    ]
    assert sorted(set(of_blocks), reverse=True) == of_blocks
    assert found["visual.trunk.stem.0.weight"] > of_blocks[0]
    assert of_blocks[-1] >= 1
    assert found["visual.head.proj.weight"] == 0


def test_a_tower_whose_depth_cannot_be_told_is_refused_where_it_is_trained() -> None:
    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = torch.nn.Linear(2, 2)

    module = clip(custom_text=True)
    module.text = Tower()
    with pytest.raises(InputError, match=r"layer_decay .* the text tower \(Tower\)"):
        distances(module)
    images = [name for name, _ in module.named_parameters() if name.startswith("visual.")]
    assert distances_from_the_end(module, images)["visual.proj"] == 0


def rates(module: Clip, **settings: Any) -> dict[str, tuple[float, float, str | None]]:
    """Name → weight decay, factor and tower."""
    trained = select_trained(module, "all")
    groups = grouped(module, trained, TrainingSettings.model_validate(settings))
    names = {id(parameter): name for name, parameter in trained.items()}
    found = {
        names[id(parameter)]: (group["weight_decay"], group["factor"], group["tower"])
        for group in groups
        for parameter in group["params"]
    }
    assert len(found) == len(trained) == sum(len(group["params"]) for group in groups)
    return found


def test_without_any_option_there_is_one_group_in_the_models_order() -> None:
    module = clip()
    trained = select_trained(module, "all")
    (group,) = grouped(module, trained, TrainingSettings())
    assert all(a is b for a, b in zip(group["params"], trained.values(), strict=True))
    assert (group["weight_decay"], group["factor"], group["tower"]) == (0.2, 1.0, None)


def test_matrices_alone_decay_where_asked() -> None:
    module = clip(RESNET)
    found = rates(module, optimiser={"weight_decay_on": "matrices"})
    shapes = dict(module.named_parameters())
    for name, (decay, *_) in found.items():
        assert decay == (0.2 if shapes[name].dim() >= 2 else 0.0), name
    assert {found[n][0] for n in ("logit_scale", "ln_final.weight", "visual.bn1.bias")} == {0.0}
    assert found["visual.conv1.weight"][0] == found["text_projection"][0] == 0.2


def test_layers_learn_the_slower_the_earlier_they_come() -> None:
    found = rates(clip(), optimiser={"layer_decay": 0.5})
    assert found["visual.conv1.weight"][1] == 0.5**4
    assert found["token_embedding.weight"][1] == 0.5**3
    assert found["transformer.resblocks.1.mlp.c_proj.weight"][1] == 0.5
    assert found["visual.proj"][1] == found["logit_scale"][1] == 1.0


def test_where_a_tower_warms_up_each_has_its_groups() -> None:
    found = rates(clip(), tower_warmup={"length": 0.5})
    assert {name: tower for name, (*_, tower) in found.items()} == {
        name: "image" if name.startswith("visual.") else "text" for name in found
    }


@pytest.mark.parametrize(("rule", "factor"), [("linear", 2.0), ("sqrt", 2**0.5)])
def test_a_rate_is_scaled_to_the_batch_size(rule: str, factor: float) -> None:
    scaling = {"reference_batch_size": 256, "rule": rule}
    settings = {"optimiser": {"learning_rate": 3e-4}, "batch_size": 512}
    plain = TrainingSettings.model_validate(settings)
    scaled = TrainingSettings.model_validate({**settings, "scale_learning_rate": scaling})
    assert plain.peak_learning_rate == 3e-4
    assert scaled.peak_learning_rate == pytest.approx(factor * 3e-4, rel=1e-12)


def test_hidden_are_the_matrices_within_the_towers_blocks_for_who_tells_them_apart() -> None:
    module = clip()
    trained = select_trained(module, "all")
    names = {id(parameter): name for name, parameter in trained.items()}
    muon = TrainingSettings.model_validate({"optimiser": {"name": "muon"}})
    found = {
        names[id(parameter)]
        for group in grouped(module, trained, muon)
        for parameter in group["params"]
        if group["hidden"]
    }
    of_block = (
        "attn.in_proj_weight",
        "attn.out_proj.weight",
        "mlp.c_fc.weight",
        "mlp.c_proj.weight",
    )
    assert found == {
        f"{tower}transformer.resblocks.{number}.{name}"
        for tower, layers in (("visual.", 3), ("", 2))
        for number in range(layers)
        for name in (*of_block, "mlp.c_proj.weight")
    }
    assert all("hidden" not in group for group in grouped(module, trained, TrainingSettings()))


def test_muon_without_a_hidden_matrix_is_refused() -> None:
    module = clip()
    muon = TrainingSettings.model_validate({"optimiser": {"name": "muon"}})
    groups = grouped(module, select_trained(module, "projections"), muon)
    with pytest.raises(InputError, match="no matrix within the towers' blocks is trained"):
        muon.optimiser.create(groups)
