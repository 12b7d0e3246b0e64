from __future__ import annotations

from typing import Any

import pytest

from fomo_dagster.errors import InputError
from fomo_dagster.methods.trained_parameters import select_trained
from fomo_dagster.models import backbones

SMALL: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "layers": 1, "width": 16, "head_width": 8},
    "text_cfg": {"context_length": 6, "layers": 1, "width": 16, "heads": 2},
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


def test_what_the_architecture_keeps_fixed_stays_fixed() -> None:
    fixed = SMALL | {"vision_cfg": SMALL["vision_cfg"] | {"pos_embed_type": "sin_cos_2d"}}
    module = backbones.create(fixed, seed=0).module
    assert "visual.positional_embedding" not in select_trained(module, "all")


def test_an_unknown_value_suggests_the_nearest() -> None:
    module = backbones.create(SMALL, seed=0).module
    with pytest.raises(InputError, match="did you mean 'locked_text'"):
        select_trained(module, "lock_text")
