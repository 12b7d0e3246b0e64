"""What is exported for transformers computes what OpenCLIP does, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel

from fomo_dagster.data.transforms import evaluate_transform
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.exporting.equivalents import equivalent, features
from fomo_dagster.exporting.fast_tokeniser import fast_tokeniser, mended
from fomo_dagster.exporting.subject import Subject
from fomo_dagster.exporting.writing import write_form
from fomo_dagster.models import backbones
from fomo_dagster.models.backbones import Model

MakeClip = Callable[..., Model]

TEXTS = ["a photo of a wren", "a photo of a crane, at dusk", "wren " * 40, "Robin's & co. 2026!"]
SCRIPT = """
import sys, numpy as np, torch, transformers
from PIL import Image
folder, kind, texts = sys.argv[1], sys.argv[2], sys.argv[3].split("\\n")
assert "open_clip" not in sys.modules and "fomo_dagster" not in sys.modules
model = getattr(transformers, kind).from_pretrained(folder).eval()
processor = getattr(transformers, kind.replace("Model", "Processor")).from_pretrained(
    folder, backend="pil"
)
with Image.open(f"{folder}/../picture.png") as image:
    inputs = processor(text=texts, images=[image], return_tensors="pt", padding="max_length",
                       truncation=True)
with torch.inference_mode():
    found = model(**inputs)
np.savez(f"{folder}/../found.npz", pixels=inputs["pixel_values"], ids=inputs["input_ids"],
         images=found.image_embeds, texts=found.text_embeds, logits=found.logits_per_image)
"""


def loaded(folder: Path, kind: str) -> dict[str, np.ndarray[Any, Any]]:
    """What a process that has only transformers makes of a picture and of `TEXTS`."""
    picture = Image.effect_noise((60, 44), 60).convert("RGB")
    picture.save(folder / "picture.png")
    arguments = [str(folder / "transformers"), kind, "\n".join(TEXTS)]
    subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], check=True, cwd=folder, timeout=120,
        env={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return dict(np.load(folder / "found.npz"))


def expected(subject: Subject, folder: Path) -> dict[str, Any]:
    model = subject.model
    transform = evaluate_transform(
        model.image_size, model.mean, model.std, model.resize_mode, model.interpolation
    )
    with Image.open(folder / "picture.png") as picture:
        pixels = transform(picture)[None]
    module: Any = model.module.eval()
    with torch.inference_mode():
        logits, _ = module.get_logits(pixels, model.tokenize(TEXTS))
        images = module.encode_image(pixels, normalize=True)
        texts = module.encode_text(model.tokenize(TEXTS), normalize=True)
    return {"pixels": pixels, "images": images, "texts": texts, "logits": logits}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fixture", "kind"), [("clip_subject", "CLIPModel"), ("siglip_subject", "SiglipModel")]
)
def test_transformers_alone_computes_what_openclip_does(
    fixture: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    subject = request.getfixturevalue(fixture)
    written = write_form("transformers", subject, tmp_path / "export")
    assert written.errors is not None
    assert written.errors.greatest < 1e-5
    found, right = loaded(tmp_path / "export", kind), expected(subject, tmp_path / "export")
    for name, value in right.items():
        torch.testing.assert_close(torch.from_numpy(found[name]), value, atol=2e-5, rtol=2e-5)


def test_a_folder_that_computes_something_else_is_refused(
    clip_subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = CLIPModel.save_pretrained

    def wrong(module: Any, place: Path) -> None:
        module.visual_projection.weight.data = module.visual_projection.weight.data.flip(0)
        right(module, place)

    monkeypatch.setattr(CLIPModel, "save_pretrained", wrong)
    with pytest.raises(DataError, match=r"read again, computes other features than the model"):
        write_form("transformers", clip_subject, tmp_path / "export")
    assert not list(tmp_path.iterdir())


def test_an_exported_folder_is_a_backbone_with_the_same_weights(
    clip_subject: Subject, tmp_path: Path
) -> None:
    write_form("transformers", clip_subject, tmp_path / "export")
    again = backbones.load_folder(tmp_path / "export" / "transformers")
    weights = clip_subject.model.module.state_dict()
    assert again.module.state_dict().keys() == weights.keys()
    for name, value in again.module.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert (again.mean, again.std, again.interpolation, again.resize_mode) == (
        clip_subject.model.mean, clip_subject.model.std, "bicubic", "shortest"
    )  # fmt: skip


def test_gelu_and_a_text_tower_of_its_own_have_an_equivalent_too(make_clip: MakeClip) -> None:
    model = make_clip(quick_gelu=False, custom_text=True)
    module = equivalent(model, "mine")
    assert module.config.vision_config.hidden_act == "gelu"
    assert module.config.text_config.layer_norm_eps == 1e-6
    images, tokens = torch.rand(3, 3, 24, 24), model.tokenize(TEXTS)
    with torch.inference_mode():
        own = model.module.eval()
        right = own.encode_image(images), own.encode_text(tokens)
    for one, other in zip(features(module, images, tokens), right, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32}},
         "ModifiedResNet.*ModifiedResNet"),
        ({"vision_cfg": {"attentional_pool": True, "attn_pooler_heads": 2}}, "class token"),
        ({"vision_cfg": {"ls_init_value": 0.1}}, "scale what they add"),
        ({"custom_text": True, "text_cfg": {"pool_type": "last"}}, "pooled by 'last'"),
    ],
)  # fmt: skip
def test_an_architecture_without_equivalent_is_refused_with_the_forms_that_work(
    changes: dict[str, Any], why: str, make_clip: MakeClip
) -> None:
    with pytest.raises(
        InputError, match=rf"(?s)no equivalent of.* mine: .*{why}.*openclip and onnx"
    ):
        equivalent(make_clip(**changes), "mine")


def test_images_that_are_padded_are_refused(clip_subject: Subject, tmp_path: Path) -> None:
    padded = replace(clip_subject, model=replace(clip_subject.model, resize_mode="longest"))
    with pytest.raises(InputError, match=r"resize_mode: longest.*openclip and onnx work"):
        write_form("transformers", padded, tmp_path / "export")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fixture", ["clip_subject", "siglip_subject"])
def test_a_tokeniser_in_one_file_gives_openclips_tokens(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    tokenize = request.getfixturevalue(fixture).model.tokenize
    odd = [
        "", " ", "a  PHOTO\tof\na wren", "it's can't I'm we'll", "naïve café — 東京 🦜🦜",
        "1234 a1b2", "wren,robin;crane!?", "<wren> {of} [a]", "Ä ß İstanbul", *TEXTS,
    ]  # fmt: skip
    made = fast_tokeniser(tokenize, ["a"])
    assert [one.ids for one in made.encode_batch(odd)] == tokenize(odd).tolist()


def test_texts_that_openclip_mends_first_are_known() -> None:
    assert mended(["a wren", " a wren ", "fish &amp; chips", "cafÃ©", "ǆ"]) == [
        "fish &amp; chips", "cafÃ©", "ǆ"
    ]  # fmt: skip


def test_settings_of_a_tokeniser_that_one_file_cannot_have_are_refused(make_clip: MakeClip) -> None:
    shortened = json.loads('{"tokenizer_kwargs": {"reduction_mask": "syntax"}}')
    model = make_clip(text_cfg=shortened)
    with pytest.raises(InputError, match="reduction_mask"):
        fast_tokeniser(model.tokenize, ["a"])
