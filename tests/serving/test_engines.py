"""What a server computes from encoded images and texts is what the evaluation computed."""

import html
import io
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fomo_dagster.data.images import decoded
from fomo_dagster.data.pixels import prepared
from fomo_dagster.data.transforms import evaluate_transform
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.exporting.onnx_folder import DESCRIPTION, TOKENISER, read_description
from fomo_dagster.exporting.writing import write_form
from fomo_dagster.serving.engine import IMAGES, TEXTS
from fomo_dagster.serving.onnx_engine import OnnxEngine
from fomo_dagster.serving.torch_engine import TorchEngine
from tests.exporting.conftest import clip_model, onnx_export, siglip_model, subject_of

__all__ = ["onnx_export"]  # a fixture
pytestmark = pytest.mark.slow

TEXTS_TO_ENCODE = [
    "a photo of a wren", "  Two   spaces ", "CAPITALS", "caf\u00c3\u00a9", "salt &amp; pepper",
    "naïve 日本 🐦", "x " * 40,
]  # fmt: skip


def encoded_images():
    """Pictures of several sizes, formats and modes, as they are sent."""
    generator = np.random.default_rng(3)
    for place, (mode, kind, size) in enumerate(
        [
            ("RGB", "JPEG", (60, 44)), ("RGB", "PNG", (24, 24)), ("L", "PNG", (31, 90)),
            ("RGBA", "PNG", (40, 25)), ("RGB", "WEBP", (100, 30)), ("P", "GIF", (33, 33)),
            ("CMYK", "JPEG", (50, 80)),
        ]
    ):  # fmt: skip
        channels = {"L": 1, "P": 1, "RGB": 3}.get(mode, 4)
        pixels = generator.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
        image = Image.fromarray(
            pixels[..., 0] if channels == 1 else pixels, mode if place else None
        )
        data = io.BytesIO()
        image.save(data, kind)
        yield data.getvalue()


def expected_of(model):
    """By PyTorch and the evaluation's own transform."""
    transform = evaluate_transform(
        model.image_size, model.mean, model.std, model.resize_mode, model.interpolation
    )
    images = torch.stack([transform(decoded(data)) for data in encoded_images()])
    module = model.module.eval()
    with torch.inference_mode():
        return (
            module.encode_image(images, normalize=True).numpy(),
            module.encode_text(model.tokenize(TEXTS_TO_ENCODE), normalize=True).numpy(),
        )


def found_by(engine):
    how = engine.description.images
    rows = np.stack([prepared(decoded(data), how) for data in encoded_images()])
    tokens = engine.tokens(TEXTS_TO_ENCODE)
    return engine.encode(IMAGES, rows), engine.encode(TEXTS, tokens.ids), tokens.cut


def assert_same(engine, model):
    images, texts, cut = found_by(engine)
    expected = expected_of(model)
    np.testing.assert_allclose(images, expected[0], atol=1e-4)
    np.testing.assert_allclose(texts, expected[1], atol=1e-4)
    return cut


def test_the_onnx_engine_computes_what_the_model_does(onnx_export):
    engine = OnnxEngine(onnx_export.folder / "onnx", threads=1)
    assert assert_same(engine, clip_model()) == (len(TEXTS_TO_ENCODE) - 1,)


def test_of_a_siglip_images_texts_scale_and_bias_are_the_models(tmp_path):
    (tmp_path / "siglip").mkdir()
    model = siglip_model(tmp_path / "siglip")
    write_form("onnx", subject_of(model, tmp_path), tmp_path / "export")
    engine = OnnxEngine(tmp_path / "export" / "onnx", threads=1)
    assert_same(engine, model)
    told = engine.description
    assert (told.scale, told.bias) == (pytest.approx(model.scale), pytest.approx(model.bias))
    assert told.images == model.preparation
    assert told.images.resize_mode == "squash"


def test_the_torch_engine_computes_what_the_model_does(monkeypatch, tmp_path):
    model = clip_model()
    monkeypatch.setattr(
        "fomo_dagster.serving.torch_engine.load_weights", lambda backbone, weights: model
    )
    engine = TorchEngine(SimpleNamespace(), tmp_path, "cpu")
    assert assert_same(engine, model) is None
    assert engine.description.images == model.preparation


def test_texts_are_mended_as_openclip_mends_them(onnx_export):
    engine, tokenize = OnnxEngine(onnx_export.folder / "onnx", threads=1), clip_model().tokenize
    np.testing.assert_array_equal(
        engine.tokens(TEXTS_TO_ENCODE).ids, tokenize(TEXTS_TO_ENCODE).numpy()
    )
    assert html.unescape(TEXTS_TO_ENCODE[4]) == "salt & pepper"  # that it matters
    raw = engine._tokeniser.encode(TEXTS_TO_ENCODE[4]).ids
    assert raw != engine.tokens([TEXTS_TO_ENCODE[4]]).ids[0].tolist()


def test_a_folder_that_cannot_be_served_says_why(onnx_export, tmp_path):
    import shutil

    folder = tmp_path / "onnx"
    shutil.copytree(onnx_export.folder / "onnx", folder)
    described = (folder / DESCRIPTION).read_text()
    (folder / DESCRIPTION).write_text(described.replace('"tokenizer.json"', "null"))
    with pytest.raises(InputError, match=r"no tokenizer\.json.*--engine torch"):
        OnnxEngine(folder)
    (folder / DESCRIPTION).write_text(described.replace('"shortest"', '"cut"'))
    with pytest.raises(DataError, match=r"does not describe a model.*resize_mode is 'cut'"):
        OnnxEngine(folder)
    (folder / DESCRIPTION).write_text(described)
    (folder / TOKENISER).write_text("{}")
    with pytest.raises(DataError, match="is no tokeniser"):
        OnnxEngine(folder)
    (folder / DESCRIPTION).unlink()
    with pytest.raises(DataError, match="cannot be read"):
        read_description(folder)


def test_serving_onnx_files_needs_neither_pytorch_nor_dagster(onnx_export):
    script = (
        "import sys\n"
        "import fomo_dagster.serving.server, fomo_dagster.cli.serving_commands\n"
        "from fomo_dagster.serving.onnx_engine import OnnxEngine\n"
        "from fomo_dagster.serving.loaded import Batching, loaded\n"
        "from pathlib import Path\n"
        "engine = OnnxEngine(Path(sys.argv[1]), 1)\n"
        "loaded(1, None, engine, Batching(), lambda *_: None).close()\n"
        "print([m for m in ('torch', 'dagster', 'open_clip', 'torchvision') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(onnx_export.folder / "onnx")],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
