from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fomo_dagster.errors import InputError
from fomo_dagster.methods.trained_parameters.declaration import Parameters
from fomo_dagster.methods.trained_parameters.selecting import select_trained
from fomo_dagster.models import backbones
from fomo_dagster.optimisation.optimisers import AdamW

SMALL: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "layers": 1, "width": 16, "head_width": 8},
    "text_cfg": {"context_length": 6, "vocab_size": 12000, "layers": 1, "width": 16, "heads": 2},
}


@pytest.mark.parametrize("custom_text", [False, True])
@pytest.mark.parametrize("train", ["all", "locked_image", "locked_text"])
def test_a_tower_is_locked_with_its_mode_and_the_logit_scale_goes_with_the_text(
    train: str, custom_text: bool
) -> None:
    module = backbones.create(SMALL | {"custom_text": custom_text}, seed=0).module
    trained = select_trained(module, train)
    for name, parameter in module.named_parameters():
        locked = {"all": False, "locked_image": name.startswith("visual.")}.get(
            train, not name.startswith("visual.")
        )
        assert parameter.requires_grad is not locked
        assert (name in trained) is not locked
    assert ("logit_scale" in trained) is (train != "locked_text")
    assert module.visual.training is (train != "locked_image")
    text = module.text if custom_text else module.transformer
    assert text.training is (train != "locked_text")


@pytest.mark.parametrize("custom_text", [False, True])
def test_selections_by_kind_name_what_the_papers_train(custom_text: bool) -> None:
    block = {f"ln_{place}.{kind}" for place in (1, 2) for kind in ("weight", "bias")}
    text = "text." if custom_text else ""
    blocks = ("visual.transformer.resblocks.0.", f"{text}transformer.resblocks.0.")
    norms = {f"{b}{name}" for b in blocks for name in block} | {
        f"{norm}.{kind}"
        for norm in ("visual.ln_pre", "visual.ln_post", f"{text}ln_final")
        for kind in ("weight", "bias")
    }
    biases = {name for name in norms if name.endswith("bias")} | {
        f"{b}{name}"
        for b in blocks
        for name in ("attn.in_proj_bias", "attn.out_proj.bias", "mlp.c_fc.bias", "mlp.c_proj.bias")
    }
    for train, expected in (
        ("layer_norms", norms),
        ("biases", biases),
        ("projections", {"visual.proj", f"{text}text_projection"}),
    ):
        module = backbones.create(SMALL | {"custom_text": custom_text}, seed=0).module
        assert set(select_trained(module, train)) == expected


def test_globs_include_and_exclude() -> None:
    module = backbones.create(SMALL, seed=0).module
    everything = {name for name, _ in module.named_parameters()}
    globs = Parameters(exclude=("visual.*", "logit_scale"))
    assert set(select_trained(module, globs)) == {
        name for name in everything if not name.startswith("visual.") and name != "logit_scale"
    }
    assert not module.visual.training
    assert module.transformer.training


@pytest.mark.parametrize(
    ("globs", "message"),
    [
        (Parameters(include=("visual.projj",)), r"include has 'visual.projj', .* 'visual.proj'"),
        (Parameters(exclude=("ln_finale.*",)), r"exclude has .* 'ln_final\.(bias|weight)'"),
        (Parameters(include=("visual.*",), exclude=("*",)), "nothing is trained"),
    ],
)
def test_globs_that_select_nothing_are_refused(globs: Parameters, message: str) -> None:
    module = backbones.create(SMALL, seed=0).module
    with pytest.raises(InputError, match=message):
        select_trained(module, globs)


def test_a_logit_bias_is_no_bias_of_a_layer() -> None:
    module = backbones.create(SMALL | {"init_logit_bias": -10.0}, seed=0).module
    assert "logit_bias" not in select_trained(module, "biases")


def test_a_batch_norm_that_is_not_trained_keeps_its_statistics() -> None:
    resnet = SMALL | {
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}
    }
    module = backbones.create(resnet, seed=0).module
    select_trained(module, Parameters(include=("visual.layer1.0.bn1.*",)))
    modes = {n: m.training for n, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert {name for name, mode in modes.items() if mode} == {"visual.layer1.0.bn1"}
    assert len(modes) > 1


def test_what_is_not_trained_has_no_optimiser_state() -> None:
    module = backbones.create(SMALL, seed=0).module
    trained = select_trained(module, "projections")
    optimiser = AdamW().create([{"params": list(trained.values())}])
    features = module.encode_image(torch.zeros(2, 3, 16, 16))
    assert features.grad_fn is not None
    features.sum().backward()
    optimiser.step()
    assert len(optimiser.state) == 1
    assert {n for n, p in module.named_parameters() if p.grad is not None} == {"visual.proj"}


def test_what_the_architecture_keeps_fixed_stays_fixed() -> None:
    fixed = SMALL | {"vision_cfg": SMALL["vision_cfg"] | {"pos_embed_type": "sin_cos_2d"}}
    module = backbones.create(fixed, seed=0).module
    assert "visual.positional_embedding" not in select_trained(module, "all")
    globs = Parameters(include=("visual.positional_embedding",))
    with pytest.raises(InputError, match="matches none"):
        select_trained(backbones.create(fixed, seed=0).module, globs)


def test_an_unknown_value_suggests_the_nearest() -> None:
    module = backbones.create(SMALL, seed=0).module
    with pytest.raises(InputError, match="did you mean 'locked_text'"):
        select_trained(module, "lock_text")
