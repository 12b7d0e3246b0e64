from __future__ import annotations

import errno
import json
import os
import pickle
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from fomo_dagster.errors import DataError, InputError, StoreError
from fomo_dagster.models import backbones

SMALL: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16},
    "text_cfg": {"context_length": 12, "layers": 1, "width": 32, "heads": 2},
}


@pytest.fixture(scope="module")
def model() -> backbones.Model:
    return backbones.create(SMALL, seed=1)


@pytest.fixture
def small_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a few of OpenCLIP's architectures small; their names and tags stay."""
    for name in ("ViT-S-32-alt", "ViT-B-32"):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, SMALL)
    quick = SMALL | {"quick_gelu": True}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32-quickgelu", quick)


def features(module: Any, tokens: torch.Tensor) -> torch.Tensor:
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return torch.cat([module.eval().encode_image(image), module.encode_text(tokens)])


def equal(left: Any, right: Any) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_the_seed_alone_decides_the_random_weights(model: backbones.Model) -> None:
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = backbones.create(SMALL, seed=1)
    other = backbones.create(SMALL, seed=2)
    assert equal(model.module.state_dict(), again.module.state_dict())
    assert not equal(model.module.state_dict(), other.module.state_dict())
    assert torch.equal(torch.get_rng_state(), before)


def test_no_weight_is_what_the_memory_held_before() -> None:
    captioner = {
        **SMALL,
        "text_cfg": {**SMALL["text_cfg"], "embed_cls": True, "output_tokens": True},
        "vision_cfg": {**SMALL["vision_cfg"], "attentional_pool": True, "output_tokens": True},
        "multimodal_cfg": {"context_length": 12, "width": 32, "heads": 2, "layers": 1},
        "custom_text": True,
    }
    torch.use_deterministic_algorithms(True)  # fills what is not initialised with NaN
    try:
        made = [backbones.create(captioner, seed=1).module.state_dict() for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert equal(*made)
    assert made[0]["text_decoder.text_projection"].std() == pytest.approx(32**-0.5, rel=0.2)


def test_creating_leaves_openclips_architectures_as_they_were() -> None:
    before = open_clip.list_models()
    backbones.create(SMALL, seed=0)
    assert open_clip.list_models() == before


def test_creating_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    backbones.create(SMALL, seed=0)
    assert not caplog.records


def test_a_model_knows_its_images_and_texts(model: backbones.Model) -> None:
    assert model.image_size == 16
    assert model.mean == open_clip.OPENAI_DATASET_MEAN
    assert model.std == open_clip.OPENAI_DATASET_STD
    assert model.resize_mode == "shortest"
    texts = ["a photo of a cat", "word " * 50]
    expected = open_clip.get_tokenizer("ViT-B-32")(texts)
    tokens = model.tokenize(texts)
    assert tokens.shape == (2, 12)
    assert torch.equal(tokens[0], expected[0, :12])
    assert torch.equal(tokens[1, :11], expected[1, :11])
    assert tokens[1, -1] == expected.max()  # the cut text still ends


def test_the_tokeniser_is_read_once_for_models_of_the_same_text_settings() -> None:
    first, again = backbones.create(SMALL, 0).tokenize, backbones.create(SMALL, 1).tokenize
    text = {**SMALL["text_cfg"], "context_length": 9}
    other = backbones.create({**SMALL, "text_cfg": text}, 0).tokenize
    assert first is again
    assert other(["a word"]).shape == (1, 9)
    assert first(["a word"]).shape == (1, SMALL["text_cfg"]["context_length"])


def test_the_tokeniser_pickles_without_the_weights(model: backbones.Model) -> None:
    data = pickle.dumps(model.tokenize)
    assert torch.equal(pickle.loads(data)(["a dog"]), model.tokenize(["a dog"]))
    assert len(data) < model.module.token_embedding.weight.nbytes


def test_saved_weights_come_back_bit_for_bit(model: backbones.Model, tmp_path: Path) -> None:
    backbones.save(model.module.state_dict(), tmp_path / "a.safetensors")
    loaded = backbones.load(SMALL, tmp_path / "a.safetensors")
    assert equal(loaded.module.state_dict(), model.module.state_dict())


def test_equal_weights_make_equal_bytes_whatever_their_layout(
    model: backbones.Model, tmp_path: Path
) -> None:
    weights = model.module.state_dict()
    backbones.save(weights, tmp_path / "a.safetensors")
    turned = {
        name: tensor.t().contiguous().t() if tensor.ndim == 2 else tensor
        for name, tensor in reversed(weights.items())
    }
    backbones.save(turned, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    ("suffix", "nested"), [(".pt", False), (".pt", True), (".bin", True), (".safetensors", False)]
)
def test_files_as_openclips_trainer_writes_them_load(
    model: backbones.Model, tmp_path: Path, prefix: str, nested: bool, suffix: str
) -> None:
    weights = {prefix + name: tensor for name, tensor in model.module.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save({"epoch": 3, "state_dict": weights} if nested else weights, path)
    loaded = backbones.load(SMALL, path).module.state_dict()
    assert equal(loaded, model.module.state_dict())


def test_half_precision_files_become_single_precision(
    model: backbones.Model, tmp_path: Path
) -> None:
    half = {name: tensor.half() for name, tensor in model.module.state_dict().items()}
    save_file(half, tmp_path / "half.safetensors")
    loaded = backbones.load(SMALL, tmp_path / "half.safetensors").module.state_dict()
    assert equal(loaded, {name: tensor.float() for name, tensor in half.items()})


def test_a_logit_scale_of_shape_one_fits_a_scalar(model: backbones.Model, tmp_path: Path) -> None:
    weights = model.module.state_dict()
    weights["logit_scale"] = weights["logit_scale"].reshape(1)
    save_file(weights, tmp_path / "a.safetensors")
    loaded = backbones.load(SMALL, tmp_path / "a.safetensors").module
    assert torch.equal(loaded.logit_scale, model.module.logit_scale)


def test_weights_without_a_text_tower_of_their_own_fit_one(
    model: backbones.Model, tmp_path: Path
) -> None:
    backbones.save(model.module.state_dict(), tmp_path / "a.safetensors")
    custom = backbones.load(SMALL | {"custom_text": True}, tmp_path / "a.safetensors")
    assert isinstance(custom.module, open_clip.CustomTextCLIP)
    tokens = model.tokenize(["a cat", "a dog"])
    assert torch.equal(features(custom.module, tokens), features(model.module, tokens))


def test_tensors_that_do_not_fit_are_named(model: backbones.Model, tmp_path: Path) -> None:
    weights = model.module.state_dict()
    del weights["visual.proj"]
    weights["surplus"] = torch.zeros(1)
    weights["text_projection"] = torch.zeros(3, 4)
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(DataError) as error:
        backbones.load(SMALL, tmp_path / "a.safetensors")
    message = str(error.value)
    assert "missing: visual.proj" in message
    assert "unexpected: surplus" in message
    assert "text_projection (3, 4) instead of (32, 16)" in message


def test_a_position_embedding_of_another_size_is_not_resized_in_silence(
    model: backbones.Model, tmp_path: Path
) -> None:
    backbones.save(model.module.state_dict(), tmp_path / "a.safetensors")
    larger = SMALL | {"vision_cfg": SMALL["vision_cfg"] | {"image_size": 32}}
    with pytest.raises(DataError, match=r"visual\.positional_embedding"):
        backbones.load(larger, tmp_path / "a.safetensors")


class Harmful:
    """Calls `open` in write mode when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_a_file_that_runs_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    torch.save({"state_dict": Harmful(tmp_path / "ran")}, tmp_path / "harmful.pt")
    with pytest.raises(DataError, match=r"harmful\.pt cannot be read as weights"):
        backbones.load(SMALL, tmp_path / "harmful.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"\xff" * 100, b"hello", b"a"])
def test_a_corrupt_file_is_named(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"broken{suffix}") as raised:
        backbones.load(SMALL, path)
    assert "weights_only" not in str(raised.value)  # PyTorch's advice, which would run code


def test_a_file_of_tensors_without_names_is_refused(tmp_path: Path) -> None:
    torch.save({0: torch.zeros(1)}, tmp_path / "numbered.pt")
    with pytest.raises(DataError, match=r"numbered\.pt holds more than weights: 0"):
        backbones.load(SMALL, tmp_path / "numbered.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*nowhere\.pt"):
        backbones.load(SMALL, tmp_path / "nowhere.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_everywhere(tmp_path: Path, value: float) -> None:
    weights = backbones.create(SMALL, seed=0).module.state_dict()
    weights["visual.proj"][0, 0] = value
    with pytest.raises(DataError, match=r"visual\.proj"):
        backbones.save(weights, tmp_path / "a.safetensors")
    for name in ("b.pt", "b.safetensors"):
        with pytest.raises(DataError, match=r"visual\.proj"):
            backbones.export(weights, "ViT-B-32", tmp_path / name)
    assert not list(tmp_path.iterdir())
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=r"not finite: visual\.proj"):
        backbones.load(SMALL, tmp_path / "a.safetensors")


def test_an_unknown_architecture_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'ViT-B-32'"):
        backbones.create("ViT-B32", seed=0)
    for name in ("local-dir:/tmp", "hf-hub:a/b"):
        with pytest.raises(InputError, match="no architecture"):
            backbones.create(name, seed=0)


def test_a_text_tower_that_cannot_be_fetched_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str, **settings: Any) -> None:
        raise OSError("We couldn't connect")

    monkeypatch.setattr(open_clip, "create_model", unreachable)
    with pytest.raises(DataError, match=r"roberta-ViT-B-32 cannot be built: We couldn't connect"):
        backbones.create("roberta-ViT-B-32", seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_cfg": {"layer": 2}}, "vision_cfg has no 'layer': did you mean 'layers'"),
        ({"text_cfg": {"widht": 2}}, "text_cfg has no 'widht': did you mean 'width'"),
        ({"text_cfg": {"vocab_size": 100}}, "vocab_size is 100, but the tokeniser has 49408"),
        ({"text_cfg": {"width": 33, "heads": 2}}, "cannot build the architecture"),
        ({"text_cfg": {"width": "wide"}}, "text_cfg.width is 'wide', which OpenCLIP does not take"),
        ({"vision_cfg": {"image_size": "big"}}, "vision_cfg.image_size is 'big'"),
        ({"vision_cfg": {"patch_size": 999}}, "patch_size is 999, above its image_size"),
        ({"text_cfg": {"hf_tokenizer_name": "x"}}, "hf_tokenizer_name is 'x'"),
        ({"text_cfg": {"tokenizer_kwargs": {"claen": "lower"}}}, "did you mean 'clean'"),
        ({"vision_cfg": {"image_size": [16, 32]}}, "16×32"),
        ({"embedding": 3}, "embedding"),
        ({"text_cfg": []}, r"text_cfg is \[\]: keys and values were expected"),
    ],
)
def test_a_wrong_configuration_says_what_is_wrong(change: dict[str, Any], message: str) -> None:
    parts = {
        key: {**SMALL[key], **value} if isinstance(value, dict) else value
        for key, value in change.items()
    }
    with pytest.raises(InputError, match=message):
        backbones.create(SMALL | parts, seed=0)


def test_a_configuration_without_a_part_is_named() -> None:
    with pytest.raises(InputError, match="lacks vision_cfg, text_cfg"):
        backbones.create({"embed_dim": 3}, seed=0)


@pytest.mark.parametrize("name", ["exported_small.pt", "exported_small.safetensors"])
def test_an_exported_configuration_loads_in_openclip_with_the_same_features(
    model: backbones.Model, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {})
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [])
    backbones.export(model.module.state_dict(), SMALL, tmp_path / name)
    assert json.loads((tmp_path / "exported_small.json").read_text()) == SMALL
    open_clip.add_model_config(tmp_path / "exported_small.json")
    loaded = open_clip.create_model("exported_small", pretrained=str(tmp_path / name))
    tokens = open_clip.get_tokenizer("exported_small")(["a cat", "a dog"])
    assert torch.equal(features(loaded, tokens), features(model.module, tokens))


@pytest.mark.usefixtures("small_names")
def test_an_exported_named_architecture_loads_in_openclip(tmp_path: Path) -> None:
    model = backbones.create("ViT-S-32-alt", seed=3)
    backbones.export(model.module.state_dict(), "ViT-S-32-alt", tmp_path / "weights.pt")
    loaded = open_clip.create_model("ViT-S-32-alt", pretrained=str(tmp_path / "weights.pt"))
    assert equal(loaded.state_dict(), model.module.state_dict())
    assert [file.name for file in tmp_path.iterdir()] == ["weights.pt"]


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_an_export_that_fails_leaves_the_file_that_is_served_as_it_was(
    model: backbones.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Also where it is killed as it writes: nothing is ever written to the path itself."""
    path = tmp_path / f"served{suffix}"
    path.write_bytes(b"precious")

    def fail(weights: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(backbones, "save_file", fail)
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(StoreError, match=rf"served{suffix} .*free some, or write to another disk"):
        backbones.export(model.module.state_dict(), SMALL, path)
    assert path.read_bytes() == b"precious"
    assert {p.name for p in tmp_path.iterdir()} == {path.name}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_an_exported_file_can_be_read_by_whom_the_mask_allows(
    model: backbones.Model, tmp_path: Path, suffix: str
) -> None:
    before = os.umask(0o027)
    try:
        backbones.export(model.module.state_dict(), SMALL, tmp_path / f"shared{suffix}")
    finally:
        os.umask(before)
    assert (tmp_path / f"shared{suffix}").stat().st_mode & 0o777 == 0o640


def test_an_export_refuses_names_that_openclip_would_misread(
    model: backbones.Model, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="takes its weights from"):
        backbones.export(model.module.state_dict(), SMALL, tmp_path / "weights.zip")
    with pytest.raises(InputError, match="choose another file name"):
        backbones.export(model.module.state_dict(), SMALL, tmp_path / "ViT-B-32.pt")
    assert not list(tmp_path.iterdir())


def test_an_unknown_tag_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'laion2b_s34b_b79k'"):
        backbones.download("ViT-B-32", "laion2b_s34b_b79")


def test_a_tag_of_another_activation_names_the_architecture_to_use() -> None:
    with pytest.raises(InputError, match=r"use the architecture ViT-B-32-quickgelu"):
        backbones.download("ViT-B-32", "openai")


@pytest.mark.usefixtures("small_names")
def test_a_file_of_a_tags_weights_is_held_to_what_the_tag_wants(
    model: backbones.Model, tmp_path: Path
) -> None:
    backbones.save(model.module.state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"use the architecture ViT-B-32-quickgelu"):
        backbones.load("ViT-B-32", tmp_path / "a.safetensors", tag="openai")
    with pytest.raises(InputError, match="did you mean 'openai'"):
        backbones.load("ViT-B-32-quickgelu", tmp_path / "a.safetensors", tag="opnai")


def test_sizes_beside_openais_weights_are_left_out(model: backbones.Model, tmp_path: Path) -> None:
    sizes = {"input_resolution": torch.tensor(16), "vocab_size": torch.tensor(49408)}
    save_file(model.module.state_dict() | sizes, tmp_path / "a.safetensors")
    loaded = backbones.load(SMALL, tmp_path / "a.safetensors")
    assert equal(loaded.module.state_dict(), model.module.state_dict())


def test_a_download_without_network_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(settings: dict[str, Any]) -> str:
        raise OSError("Name or service not known")

    monkeypatch.setattr(backbones, "download_pretrained", unreachable)
    with pytest.raises(DataError, match=r"could not be downloaded .*Name or service not known"):
        backbones.download("ViT-B-32", "laion2b_s34b_b79k")


@pytest.mark.usefixtures("small_names")
def test_a_download_is_the_file_that_openclip_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = backbones.create("ViT-S-32-alt", seed=3).module.state_dict()
    torch.save({"state_dict": weights}, tmp_path / "fetched.pt")
    tag = {
        "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2), "interpolation": "bilinear",
        "resize_mode": "squash",
    }  # fmt: skip
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-S-32-alt", {"mine": tag})
    monkeypatch.setattr(backbones, "download_pretrained", lambda settings: tmp_path / "fetched.pt")
    assert equal(backbones.download("ViT-S-32-alt", "mine"), weights)
    model = backbones.load("ViT-S-32-alt", tmp_path / "fetched.pt", tag="mine")
    assert (model.mean, model.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    assert (model.interpolation, model.resize_mode) == ("bilinear", "squash")
    images = {"interpolation": "bicubic", "std": [0.1, 0.2, 0.3]}
    changed = backbones.load("ViT-S-32-alt", tmp_path / "fetched.pt", tag="mine", images=images)
    assert (changed.mean, changed.std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    assert (changed.interpolation, changed.resize_mode) == ("bicubic", "squash")
