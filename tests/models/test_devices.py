from __future__ import annotations

import pytest
import torch

from fomo_dagster.errors import InputError
from fomo_dagster.models.backbones import create
from fomo_dagster.models.devices import device_of


def test_auto_is_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of("auto") == torch.device("cuda")


def test_a_device_that_is_there_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("cpu", "cuda", "cuda:1"):
        assert device_of(name) == torch.device(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:7", ""])
def test_a_device_that_is_not_there_is_named_with_those_that_are(name: str) -> None:
    with pytest.raises(
        InputError, match=rf"execution\.device '{name}' does not exist on this machine: .*cpu"
    ):
        device_of(name)


@pytest.mark.gpu
def test_features_on_cuda_are_those_of_the_cpu() -> None:
    tower = {"layers": 1, "width": 16}
    model = create(
        {
            "embed_dim": 16,
            "vision_cfg": {**tower, "image_size": 16, "head_width": 8, "patch_size": 8},
            "text_cfg": {**tower, "context_length": 12, "vocab_size": 49408, "heads": 2},
        },
        0,
    )
    images = torch.linspace(-2, 2, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16).sin()
    expected = model.module.encode_image(images)
    found = model.module.to("cuda").encode_image(images.to("cuda"))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-4)
