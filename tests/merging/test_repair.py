"""REPAIR on OpenCLIP's own small models, against statistics taken here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fomo_dagster.errors import DataError, InputError
from fomo_dagster.merging.linear import Interpolation, WeightedMean
from fomo_dagster.merging.magmax import MagMax
from fomo_dagster.merging.repair import Calibration, repair
from fomo_dagster.merging.techniques import merge
from fomo_dagster.models import backbones

pytestmark = pytest.mark.slow

CONFIGURATION: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {
        "image_size": 16, "patch_size": 8, "layers": 3, "width": 16, "head_width": 8,
    },
    "text_cfg": {"context_length": 7, "layers": 2, "width": 12, "heads": 2},
}  # fmt: skip
LAYERS = [f"visual.transformer.resblocks.{i}.mlp.c_fc" for i in range(3)] + [
    f"transformer.resblocks.{i}.mlp.c_fc" for i in range(2)
]
TEXTS = ["a robin", "a red wren on a tree", "of a of a of a of a of a", "a"]
Weights = dict[str, Tensor]


def weights(seed: int) -> Weights:
    """Random, with biases that are not zero."""
    made = backbones.create(CONFIGURATION, seed).module.state_dict()
    random = torch.Generator().manual_seed(seed)
    return {
        name: tensor + 0.3 * torch.randn(tensor.shape, generator=random)
        if name.endswith("bias")
        else 3 * tensor
        if "mlp.c_fc" in name
        else tensor
        for name, tensor in made.items()
    }


def load(path: Path) -> Any:
    return backbones.load(CONFIGURATION, path).module.eval()


def calibration(samples: int = 40) -> Calibration:
    tokenize = backbones.create(CONFIGURATION, 0).tokenize
    random = torch.Generator().manual_seed(3)
    texts = [TEXTS[i % len(TEXTS)] for i in range(samples)]
    return Calibration(torch.randn(samples, 3, 16, 16, generator=random), tokenize(texts))


def outputs(path: Path, given: Calibration) -> dict[str, Tensor]:
    """(positions that count, C) of each layer, float64, a sample at a time."""
    module = load(path)
    found: dict[str, list[Tensor]] = {name: [] for name in LAYERS}
    for name, layer in module.named_modules():
        if name in found:
            layer.register_forward_hook(lambda _, __, out, name=name: found[name].append(out[0]))
    with torch.no_grad():
        for image, tokens in zip(given.images, given.tokens, strict=True):
            length = int(tokens.argmax()) + 1  # until the token of the end
            module.encode_image(image[None])
            module.encode_text(tokens[None])
            for name in LAYERS:
                if not name.startswith("visual."):
                    found[name][-1] = found[name][-1][:length]
    return {name: torch.cat(pieces).double() for name, pieces in found.items()}


def moments(path: Path, given: Calibration) -> dict[str, Tensor]:
    """(2, C): means and deviations."""
    return {
        name: torch.stack([rows.mean(0), rows.std(0, unbiased=False)])
        for name, rows in outputs(path, given).items()
    }


def repaired(
    folder: Path, models: list[Weights], shares: tuple[float, ...], given: Calibration
) -> list[Path]:
    """Files of the models, of their mean by the shares, and of that repaired."""
    paths = [folder / f"{i}.safetensors" for i in range(len(models))]
    for path, tensors in zip(paths, models, strict=True):
        save_file(tensors, path)
    merged, output = folder / "merged.safetensors", folder / "repaired.safetensors"
    merge(WeightedMean(coefficients=shares), paths, merged)
    repair(load, paths, merged, output, given, shares)
    return [*paths, merged, output]


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.2, 0.5, 0.3)])
def test_every_layer_gets_the_mean_of_the_models_moments(
    tmp_path: Path, shares: tuple[float, ...]
) -> None:
    given = calibration()
    models = [weights(i) for i in range(len(shares))]
    *paths, merged, output = repaired(tmp_path, models, shares, given)
    found, before = moments(output, given), moments(merged, given)
    of_models = [moments(path, given) for path in paths]
    for name in LAYERS:
        target = sum(s * of_one[name] for s, of_one in zip(shares, of_models, strict=True))
        torch.testing.assert_close(found[name], target, rtol=1e-5, atol=1e-5)
        # Without it much of the deviation is gone.
        assert (before[name][1] / target[1]).mean() < 0.85
    changed = {n for n, t in load_file(output).items() if not torch.equal(t, load_file(merged)[n])}
    assert changed == {f"{name}.{part}" for name in LAYERS for part in ("weight", "bias")}


def test_a_layer_whose_middle_collapsed_is_scaled_back_in_closed_form(tmp_path: Path) -> None:
    """The second model's first layer is -0.8 of the first's, so that the middle has a tenth of it:
    deviations σ and 0.8 σ have the mean 0.9 σ, nine times what is left."""
    given = calibration()
    first = weights(1)
    layer = LAYERS[0]
    second = dict(first)
    for part in ("weight", "bias"):
        second[f"{layer}.{part}"] = -0.8 * first[f"{layer}.{part}"]
    *_, output = repaired(tmp_path, [first, second], (0.5, 0.5), given)
    found = load_file(output)
    weight, bias = first[f"{layer}.weight"], first[f"{layer}.bias"]
    torch.testing.assert_close(found[f"{layer}.weight"], 0.9 * weight, rtol=1e-5, atol=1e-6)
    mean = outputs(tmp_path / "0.safetensors", given)[layer].mean(0).float()
    torch.testing.assert_close(
        found[f"{layer}.bias"], 0.9 * (bias - mean) + 0.1 * mean, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("shares", [(1.0,), (0.5, 0.5), (0.3, 0.3, 0.4)])
def test_equal_models_stay_as_they_are(tmp_path: Path, shares: tuple[float, ...]) -> None:
    *_, merged, output = repaired(tmp_path, [weights(1)] * len(shares), shares, calibration())
    found = load_file(output)
    for name, expected in load_file(merged).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-6, atol=1e-7)


def test_a_channel_without_deviation_keeps_its_scale_and_gets_the_mean(tmp_path: Path) -> None:
    given = calibration()
    first = weights(1)
    layer = LAYERS[1]
    second = dict(first) | {f"{layer}.weight": first[f"{layer}.weight"].clone()}
    second[f"{layer}.weight"][3] *= -1
    *_, output = repaired(tmp_path, [first, second], (0.5, 0.5), given)
    found = load_file(output)
    assert torch.equal(found[f"{layer}.weight"][3], torch.zeros(16))
    bias = first[f"{layer}.bias"][3]  # the two means are at the same distance from it
    torch.testing.assert_close(found[f"{layer}.bias"][3], bias, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[f"{layer}.weight"][4], first[f"{layer}.weight"][4])


def test_what_fills_up_texts_does_not_count(tmp_path: Path) -> None:
    """With and without more of it the same, but for positions that texts do not reach."""
    given = calibration()
    longer = CONFIGURATION | {"text_cfg": CONFIGURATION["text_cfg"] | {"context_length": 9}}
    found = []
    for configuration, fill in ((CONFIGURATION, 0), (longer, 2)):
        models = []
        for seed in (1, 2):
            tensors = weights(seed)
            extra = torch.ones(fill, 12)
            tensors["positional_embedding"] = torch.cat([tensors["positional_embedding"], extra])
            models.append(tmp_path / f"{seed}.safetensors")
            save_file(tensors, models[-1])
        merge(Interpolation(), models, tmp_path / "merged.safetensors")
        tokens = nn.functional.pad(given.tokens, (0, fill))
        repair(
            lambda path, c=configuration: backbones.load(c, path).module.eval(),
            models, tmp_path / "merged.safetensors", tmp_path / "out.safetensors",
            Calibration(given.images, tokens), (0.5, 0.5),
        )  # fmt: skip
        found.append(load_file(tmp_path / "out.safetensors"))
    for name in LAYERS:
        for part in (f"{name}.weight", f"{name}.bias"):
            torch.testing.assert_close(found[0][part], found[1][part], rtol=1e-4, atol=1e-5)


def test_towers_of_timm_are_repaired_and_those_without_mlps_refused(tmp_path: Path) -> None:
    timm = CONFIGURATION | {
        "vision_cfg": {
            "timm_model_name": "vit_tiny_patch16_224", "timm_model_pretrained": False,
            "timm_pool": "token", "timm_proj": "linear", "image_size": 224,
        },
    }  # fmt: skip
    resnet = CONFIGURATION | {
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}
    }
    for configuration, refusal in ((timm, None), (resnet, "the image tower has no such")):
        models = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
        size = 0
        for seed, path in enumerate(models):
            model = backbones.create(configuration, seed)
            size = model.image_size
            backbones.save(model.module.state_dict(), path)
        merge(Interpolation(), models, tmp_path / "merged.safetensors")
        given = Calibration(torch.randn(2, 3, size, size), calibration(2).tokens)

        def of_configuration(path: Path, chosen: Any = configuration) -> Any:
            return backbones.load(chosen, path).module.eval()

        arguments = (
            of_configuration, models, tmp_path / "merged.safetensors", tmp_path / "out", given,
            (0.5, 0.5),
        )  # fmt: skip
        if refusal is not None:
            with pytest.raises(InputError, match=refusal):
                repair(*arguments)
            continue
        repair(*arguments)
        before, after = load_file(tmp_path / "merged.safetensors"), load_file(tmp_path / "out")
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert {f"visual.trunk.blocks.{i}.mlp.fc1.weight" for i in range(12)} <= changed


def test_activations_that_are_not_finite_are_named(tmp_path: Path) -> None:
    given = calibration(4)
    given.images[1, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match=r"visual\.transformer\.resblocks\.0\.mlp\.c_fc is not fin"):
        repaired(tmp_path, [weights(1), weights(2)], (0.5, 0.5), given)


def test_models_count_by_the_techniques_coefficients_where_they_are_shares() -> None:
    assert Interpolation(weight=0.25).shares(2) == (0.75, 0.25)
    assert WeightedMean().shares(4) == (0.25,) * 4
    assert WeightedMean(coefficients=(0.1, 0.9)).shares(2) == (0.1, 0.9)
    assert WeightedMean(coefficients=(-1, 2)).shares(2) == (0.5, 0.5)
    assert MagMax(coefficients=(1.0, 3.0)).shares(2) == (0.25, 0.75)
    assert MagMax(coefficients=(0.0, 0.0)).shares(2) == (0.5, 0.5)
    assert MagMax().shares(3) == (1 / 3,) * 3
