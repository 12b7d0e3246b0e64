"""Folders of weights as Hugging Face has them: the same features as the library that wrote them."""

import json
import pickle
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.push_to_hf_hub import save_for_hf
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, CLIPConfig, CLIPImageProcessor, CLIPModel
from transformers import PreTrainedTokenizerFast as FastTokenizer

from fomo_dagster.data.transforms import evaluate_transform
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.models import backbones

TEXTS = ["a red square", "a blue circle", "red " * 40]
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "red", "blue", "square", "circle"]
VISION = {"image_size": 16, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16}
WITH_OWN_TEXTS = {
    "embed_dim": 16,
    "vision_cfg": VISION,
    "text_cfg": {
        "context_length": 8, "vocab_size": len(WORDS), "layers": 1, "width": 32, "heads": 2,
        "hf_tokenizer_name": "someone/words", "tokenizer_kwargs": {"clean": "canonicalize"},
        "pool_type": "last", "no_causal_mask": True,
    },
    "custom_text": True,
}  # fmt: skip
WITH_BERT = {
    "embed_dim": 16,
    "vision_cfg": VISION,
    "text_cfg": {
        "context_length": 8, "hf_model_name": "someone/tiny-bert", "hf_proj_type": "linear",
        "hf_tokenizer_name": "someone/tiny-bert", "hf_pooler_type": "mean_pooler",
    },
}  # fmt: skip


def save_words(folder: Path, **special: str) -> None:
    """A tokeniser of nine tokens, as `save_pretrained` writes one."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    FastTokenizer(
        tokenizer_object=words, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        unk_token="[UNK]", **special,
    ).save_pretrained(folder)  # fmt: skip


def save_openclip(folder: Path, configuration: dict[str, Any], **images: Any) -> None:
    """A folder as `open_clip.push_to_hf_hub` fills one, with random weights."""
    save_words(folder)
    described = json.loads(json.dumps(configuration))
    if "hf_model_name" in described["text_cfg"]:
        tower = folder / "tiny-bert"
        BertConfig(
            vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=48, max_position_embeddings=8,
        ).save_pretrained(tower)  # fmt: skip
        described["text_cfg"]["hf_model_name"] = str(tower)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": described}))
    torch.manual_seed(3)
    module = open_clip.create_model(
        f"local-dir:{folder}", load_weights=False, pretrained_text=False,
        force_preprocess_cfg=images,
    )  # fmt: skip
    tokeniser = open_clip.get_tokenizer(f"local-dir:{folder}")
    save_for_hf(module, tokeniser, configuration, str(folder), safe_serialization=True)


@pytest.fixture(scope="module", params=[WITH_OWN_TEXTS, WITH_BERT], ids=["own", "bert"])
def openclip_folder(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("openclip")
    images = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear"}
    save_openclip(folder, request.param, resize_mode="squash", **images)
    return folder


def reference(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, Any]:
    """OpenCLIP's own model, transform and tokeniser of a folder; a text tower's name is a path
    from where the process works."""
    (folder / "someone").mkdir(exist_ok=True)
    if (folder / "tiny-bert").exists() and not (folder / "someone" / "tiny-bert").exists():
        (folder / "someone" / "tiny-bert").symlink_to(folder / "tiny-bert")
    monkeypatch.chdir(folder)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval(), transform, open_clip.get_tokenizer(f"local-dir:{folder}")


def test_an_openclip_folder_computes_what_openclip_computes(openclip_folder, monkeypatch) -> None:
    ours = backbones.load_folder(openclip_folder)
    theirs, transform, tokeniser = reference(openclip_folder, monkeypatch)
    picture = Image.effect_noise((40, 25), 60).convert("RGB")
    mine = evaluate_transform(
        ours.image_size, ours.mean, ours.std, ours.resize_mode, ours.interpolation
    )
    assert torch.equal(mine(picture), transform(picture))
    assert torch.equal(ours.tokenize(TEXTS), tokeniser(TEXTS))
    pixels, tokens = transform(picture)[None], tokeniser(TEXTS)
    with torch.inference_mode():
        module = ours.module.eval()
        torch.testing.assert_close(module.encode_image(pixels), theirs.encode_image(pixels))
        torch.testing.assert_close(module.encode_text(tokens), theirs.encode_text(tokens))


def test_a_checkpoint_of_a_folders_model_loads_over_it(openclip_folder, tmp_path) -> None:
    model = backbones.load_folder(openclip_folder)
    with torch.no_grad():
        model.module.logit_scale += 1
    backbones.save(model.module.state_dict(), tmp_path / "trained.safetensors")
    again = backbones.load(
        model.architecture, tmp_path / "trained.safetensors", folder=openclip_folder
    )
    assert torch.equal(again.module.logit_scale, model.module.logit_scale)
    assert torch.equal(again.tokenize(TEXTS), model.tokenize(TEXTS))


def test_texts_are_cut_as_their_tokeniser_ends_them_and_it_pickles(openclip_folder) -> None:
    tokenize = backbones.load_folder(openclip_folder).tokenize
    tokens = tokenize(["red red", "red " * 40])
    pad, start, end, _, _, red, *_ = range(len(WORDS))
    assert tokens.tolist() == [
        [start, red, red, end, pad, pad, pad, pad],
        [start, *[red] * 6, end],
    ]
    assert torch.equal(pickle.loads(pickle.dumps(tokenize))(["red red"]), tokens[:1])


def test_a_configuration_alone_cannot_have_a_hugging_face_tower_or_tokeniser() -> None:
    with pytest.raises(InputError, match=r"tiny-bert.*give the architecture's name, or the folder"):
        backbones.create(WITH_BERT, seed=0)
    with pytest.raises(InputError, match=r"someone/words.*give the architecture's name, or the"):
        backbones.create(WITH_OWN_TEXTS, seed=0)


def test_an_outline_needs_no_tokeniser_and_knows_how_many_tokens_there_are() -> None:
    for architecture, length in ((WITH_OWN_TEXTS, 8), ("ViT-S-32-alt", 77)):
        outlined = backbones.meta_model(architecture)
        assert all(parameter.is_meta for parameter in outlined.module.parameters())
        assert outlined.tokenize(["", "red"]).shape == (2, length)
    with pytest.raises(InputError, match="from its folder of weights alone"):
        backbones.meta_model("")


def changed(folder: Path, to: Path, **text: Any) -> Path:
    """A copy of a folder, with other values in its text configuration."""
    to.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            (to / path.name).write_bytes(path.read_bytes())
    told = json.loads((to / "open_clip_config.json").read_text())
    told["model_cfg"]["text_cfg"] |= text
    (to / "open_clip_config.json").write_text(json.dumps(told))
    return to


@pytest.fixture(scope="module")
def words_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    save_openclip(folder, WITH_OWN_TEXTS)
    return folder


def test_a_tokeniser_with_more_tokens_than_the_model_is_refused(words_folder, tmp_path) -> None:
    folder = changed(words_folder, tmp_path / "fewer", vocab_size=len(WORDS) - 1)
    with pytest.raises(InputError, match="vocab_size is 8, but the tokeniser has 9 tokens"):
        backbones.load_folder(folder)


def test_special_tokens_that_no_text_comes_to_need_no_embedding(words_folder, tmp_path) -> None:
    folder = changed(words_folder, tmp_path / "extra")
    save_words(folder, extra_special_tokens=["<extra_0>", "<extra_1>"])
    tokenize = backbones.load_folder(folder).tokenize
    assert len(tokenize.tokenizer) == len(WORDS) + 2
    assert torch.equal(tokenize(TEXTS), backbones.load_folder(words_folder).tokenize(TEXTS))


def test_settings_that_could_run_code_do_not_reach_the_tokeniser(words_folder, tmp_path) -> None:
    folder = changed(words_folder, tmp_path / "code", tokenizer_kwargs={"trust_remote_code": True})
    with pytest.raises(InputError, match="tokenizer_kwargs has 'trust_remote_code'"):
        backbones.load_folder(folder)


def test_a_tokeniser_that_is_not_there_or_cannot_pad_is_named(words_folder, tmp_path) -> None:
    folder = changed(words_folder, tmp_path / "none")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"none has no vocabulary of the tokeniser 'someone/words'"):
        backbones.load_folder(folder)
    folder = changed(words_folder, tmp_path / "unpadded")
    told = json.loads((folder / "tokenizer_config.json").read_text())
    del told["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match=r"unpadded cannot be used: .*pad"):
        backbones.load_folder(folder)


def test_a_text_tower_that_nothing_describes_is_named(openclip_folder, tmp_path) -> None:
    folder = changed(openclip_folder, tmp_path / "c", hf_model_name="someone/else")
    with pytest.raises(InputError, match=r"'someone/else'.*put its config\.json into .*c/else"):
        backbones.load_folder(folder)


def clip(vision: dict[str, Any] | None = None, text: dict[str, Any] | None = None) -> CLIPModel:
    """transformers' CLIPModel, small, with weights far from those that would hide a mistake."""
    config = CLIPConfig(
        vision_config={
            "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2,
            "num_attention_heads": 4, "image_size": 16, "patch_size": 8, **(vision or {}),
        },
        text_config={
            "hidden_size": 24, "intermediate_size": 44, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 12, **(text or {}),
        },
        projection_dim=16,
    )  # fmt: skip
    torch.manual_seed(5)
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "logit_scale" not in name and "token_embedding" not in name:
                parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("kind", ["safetensors", "bin", "parts"])
@pytest.mark.parametrize("gelu", [False, True])
def test_a_transformers_folder_computes_what_transformers_computes(tmp_path, kind, gelu) -> None:
    told = {"hidden_act": "gelu", "layer_norm_eps": 1e-3} if gelu else {}
    theirs = clip(told, told)
    theirs.save_pretrained(tmp_path, max_shard_size="1MB" if kind == "parts" else "1GB")
    if kind == "bin":
        (tmp_path / "model.safetensors").unlink()
        positions = {"text_model.embeddings.position_ids": torch.arange(12)[None]}  # as older ones
        torch.save(theirs.state_dict() | positions, tmp_path / "pytorch_model.bin")
    assert len(list(tmp_path.glob("*.safetensors"))) == {"safetensors": 1, "bin": 0}.get(kind, 2)
    ours = backbones.load_folder(tmp_path)
    tokens = ours.tokenize(TEXTS)
    pixels = torch.randn(3, 3, 16, 16)
    with torch.inference_mode():
        expected = theirs(input_ids=tokens, pixel_values=pixels)
        image, text, scale = ours.module.eval()(pixels, tokens)
    torch.testing.assert_close(image, expected.image_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(text, expected.text_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(scale * image @ text.T, expected.logits_per_image, rtol=0, atol=1e-5)
    assert expected.logits_per_image.std() > 0.1  # or all would look alike


def test_a_transformers_folder_says_how_its_images_look(tmp_path) -> None:
    clip().save_pretrained(tmp_path)
    processor = CLIPImageProcessor(
        size={"height": 16, "width": 16}, do_center_crop=False, resample=2,
        image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4],
    )  # fmt: skip
    processor.save_pretrained(tmp_path)
    ours = backbones.load_folder(tmp_path)
    assert (ours.mean, ours.std) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert (ours.interpolation, ours.resize_mode) == ("bilinear", "squash")


@pytest.mark.parametrize(
    "told", [{"do_rescale": False}, {"rescale_factor": 1 / 127.5}, {"do_resize": False}]
)
def test_pixels_that_openclip_would_bring_elsewhere_are_refused(tmp_path, told) -> None:
    clip().save_pretrained(tmp_path)
    sizes = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    CLIPImageProcessor(**sizes).save_pretrained(tmp_path)
    backbones.load_folder(tmp_path)
    CLIPImageProcessor(**sizes, **told).save_pretrained(tmp_path)
    (key,) = told
    with pytest.raises(InputError, match=rf"preprocessor_config\.json: {key} is .*, and only"):
        backbones.load_folder(tmp_path)


def test_of_the_parts_of_weights_the_one_that_is_not_there_is_named(tmp_path) -> None:
    clip().save_pretrained(tmp_path, max_shard_size="1MB")
    first, _ = sorted(tmp_path.glob("model-*.safetensors"))
    first.unlink()
    with pytest.raises(InputError, match=rf"that are not in its folder: {first.name}$"):
        backbones.load_folder(tmp_path)


def test_a_tensor_that_no_clip_model_has_is_named(tmp_path) -> None:
    model = clip()
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    for name in ("surplus", "text_model.encoder.layers.0.gate.weight"):
        torch.save(model.state_dict() | {name: torch.zeros(1)}, tmp_path / "pytorch_model.bin")
        with pytest.raises(DataError, match=rf"{name} is no tensor of transformers' CLIPModel"):
            backbones.load_folder(tmp_path)
    weights = model.state_dict()
    del weights["vision_model.encoder.layers.0.self_attn.k_proj.bias"]
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"k_proj\.bias is missing"):
        backbones.load_folder(tmp_path)
