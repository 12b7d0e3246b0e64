"""ONNX files compute what the model does, in a process of onnxruntime's, for any batch."""

from __future__ import annotations

import hashlib
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

from fomo_dagster.errors import DataError, InputError
from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.evaluation.evaluate import evaluate
from fomo_dagster.evaluation.prompts import mean_embeddings
from fomo_dagster.exporting import onnx_files
from fomo_dagster.exporting.onnx_folder import IMAGE_ENCODER, TEXT_ENCODER
from fomo_dagster.exporting.samples import samples_of
from fomo_dagster.exporting.subject import Subject
from fomo_dagster.exporting.writing import write_form, write_forms
from fomo_dagster.metrics import SCORE
from fomo_dagster.models.backbones import Model
from tests.exporting.conftest import ONNX_FORMS

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys, numpy as np, onnxruntime
from tokenizers import Tokenizer
folder, texts = sys.argv[1], sys.argv[2].split("\\n")
assert "torch" not in sys.modules
tokens = np.array([one.ids for one in Tokenizer.from_file(f"{folder}/tokenizer.json").encode_batch(texts)])
images = np.load("images.npy")
run = lambda name, key, batch: onnxruntime.InferenceSession(f"{folder}/{name}.onnx").run(None, {key: batch})[0]
one = [run("image_encoder", "images", images[i : i + 1]) for i in range(2)]
np.savez("found.npz", images=run("image_encoder", "images", images), texts=run("text_encoder", "tokens", tokens), one=np.concatenate(one))
"""  # noqa: E501


def test_files_tell_nothing_of_the_machine_that_wrote_them(onnx_export: Any) -> None:
    files = sorted(onnx_export.folder.rglob("*.onnx"))
    assert len(files) == 6
    for file in files:
        data = file.read_bytes()
        for told in (b"stack_trace", b"site-packages", b"onnx_files.py", str(Path.cwd()).encode()):
            assert told not in data, f"{file}: {told!r}"


@pytest.mark.parametrize("form", ONNX_FORMS)
def test_onnxruntime_alone_computes_what_the_model_does(
    form: str, clip_subject: Subject, onnx_export: Any, tmp_path: Path
) -> None:
    export = onnx_export.folder
    samples = samples_of(clip_subject)
    np.save(tmp_path / "images.npy", samples.images.numpy())
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(export / form), "\n".join(samples.texts)],
        check=True, cwd=tmp_path, timeout=120,
    )  # fmt: skip
    found = np.load(tmp_path / "found.npz")
    module = clip_subject.model.module.eval()
    with torch.inference_mode():
        images = module.encode_image(samples.images, normalize=True).numpy()
        texts = module.encode_text(samples.tokens, normalize=True).numpy()
    assert len(images) == 100  # all that there are
    # What int8 gives depends a little on the batch, and was told of another one.
    told = onnx_export.written[form].errors.greatest
    allowed = {"onnx": 1e-5, "onnx_fp16": told + 1e-5, "onnx_int8": 1.5 * told}[form]
    np.testing.assert_allclose(found["images"], images, rtol=0, atol=allowed)
    np.testing.assert_allclose(found["texts"], texts, rtol=0, atol=allowed)
    np.testing.assert_allclose(found["one"], images[:2], rtol=0, atol=allowed)


def test_the_folder_tells_how_images_and_similarities_are_made(
    clip_subject: Subject, onnx_export: Any
) -> None:
    export = onnx_export.folder
    told = json.loads((export / "onnx" / "model.json").read_text())
    assert told["scale"] == pytest.approx(clip_subject.model.scale)
    assert told["images"]["mean"] == list(clip_subject.model.mean)


def test_lower_precisions_are_smaller_and_their_errors_are_told(onnx_export: Any) -> None:
    sizes = {
        form: sum(path.stat().st_size for path in (onnx_export.folder / form).glob("*.onnx"))
        for form in ("onnx", "onnx_fp16", "onnx_int8")
    }
    assert sizes["onnx_fp16"] < 0.6 * sizes["onnx"]
    assert sizes["onnx_int8"] < 0.4 * sizes["onnx"]
    errors = {
        form: one.errors for form, one in onnx_export.written.items() if one.errors is not None
    }
    assert errors["onnx"].greatest < 1e-5 < errors["onnx_fp16"].greatest < 1e-2
    assert errors["onnx_fp16"].greatest < errors["onnx_int8"].greatest < 0.3


def test_the_loss_of_score_is_that_of_evaluating_what_was_written(
    clip_subject: Subject, onnx_export: Any
) -> None:
    written = onnx_export.written["onnx_int8"]
    assert written.loss is not None
    model = onnx_files.onnx_model(onnx_export.folder / "onnx_int8", clip_subject.model)
    # Activations are quantised by the batch that they come in, so that its size matters.
    batch_size = clip_subject.execution.evaluation_batch_size
    encoder = Encoder(model=model, batch_size=batch_size, precision="fp32", device="cpu")
    for one in clip_subject.evaluated:
        result = evaluate(
            encoder, one.evaluation_set, clip_subject.settings,
            lambda texts, each: mean_embeddings(encoder.texts(texts), each),
        )  # fmt: skip
        (score,) = result.metrics.filter(metric=SCORE)["value"]
        change = written.loss.datasets[one.name]
        assert (change.before, change.after) == (one.score, pytest.approx(score))
        assert change.difference is not None
        assert change.difference.estimate == pytest.approx(score - one.score)
        assert change.difference.low <= score - one.score <= change.difference.high
    assert written.loss.means["KA"].after == written.loss.datasets["birds"].after


def test_the_card_tells_scores_errors_digests_and_licences(
    clip_subject: Subject, onnx_export: Any
) -> None:
    export = onnx_export.folder
    page = (export / "README.md").read_text()
    file = export / "onnx_int8" / "image_encoder.onnx"
    assert hashlib.sha256(file.read_bytes()).hexdigest() in page
    for one in clip_subject.evaluated:
        assert f"| {one.name} | {one.role.replace('_', ' ')} |" in page
        assert f"| {one.score:.2f} |" in page
    assert "birds (CC BY-NC-SA 4.0) forbids commercial use" in page
    assert "| old | pretraining | not counted | not declared |" in page
    assert 'Tokenizer.from_file("onnx_int8/tokenizer.json")' in page
    assert "| weights | `0123` |" in page


def test_a_siglip_exports_too(siglip_subject: Subject, tmp_path: Path) -> None:
    written = write_form("onnx", siglip_subject, tmp_path / "export")
    assert written.errors is not None
    assert written.errors.greatest < 1e-5
    told = json.loads((tmp_path / "export" / "onnx" / "model.json").read_text())
    assert told["bias"] == pytest.approx(siglip_subject.model.module.logit_bias.item())


def test_an_operator_that_onnx_lacks_is_named_and_nothing_is_left(
    clip_subject: Subject, make_clip: Callable[..., Model], tmp_path: Path
) -> None:
    @torch.library.custom_op("fomo_test::unknown", mutates_args=())
    def unknown(features: torch.Tensor) -> torch.Tensor:
        return features.clone()

    unknown.register_fake(lambda features: features.clone())

    class Odd(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return unknown(self.inner(images))

    model = make_clip()
    model.module.visual = Odd(model.module.visual)
    subject = replace(clip_subject, model=model)
    with pytest.raises(InputError, match=r"no operator for fomo_test.*unknown.*openclip works"):
        write_forms(["openclip", "onnx"], subject, tmp_path / "export")
    assert not list(tmp_path.iterdir())


def test_files_that_compute_something_else_are_refused(
    clip_subject: Subject, make_clip: Callable[..., Model], onnx_export: Any
) -> None:
    samples, folder = samples_of(clip_subject), onnx_export.folder / "onnx"
    onnx_files.checked(clip_subject.model, folder, samples)
    with pytest.raises(DataError, match=r"other features than the model.*1e-04 is allowed"):
        onnx_files.checked(make_clip(quick_gelu=False), folder, samples)


def test_what_cannot_be_decoded_as_onnx_is_refused(clip_subject: Subject, tmp_path: Path) -> None:
    for name in (IMAGE_ENCODER, TEXT_ENCODER):
        (tmp_path / name).write_bytes(b"none")
    with pytest.raises(InputError, match=r"onnxruntime .* cannot load image_encoder.onnx"):
        onnx_files.onnx_model(tmp_path, clip_subject.model)
