"""Both towers of a model as ONNX files, and a model whose towers are such files.

The files take any number of images or texts and give L2-normalised features. torch's exporter by
`torch.export` writes them; onnxruntime runs them, on the CPU.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from fomo_dagster.errors import DataError, InputError
from fomo_dagster.exporting.fast_tokeniser import fast_tokeniser
from fomo_dagster.exporting.features import TOLERANCE, FeatureErrors, on_cpu, unit_features
from fomo_dagster.exporting.onnx_folder import (
    DESCRIPTION,
    IMAGE_ENCODER,
    TEXT_ENCODER,
    TOKENISER,
    Description,
)
from fomo_dagster.exporting.onnx_sessions import session_of
from fomo_dagster.exporting.samples import Samples
from fomo_dagster.models.backbones import Model

OPSET = 18  # the one that torch's exporter is written in; any other is converted afterwards
_OPERATOR = re.compile(r"op='([^']+)'")


def export_towers(model: Model, samples: Samples, folder: Path) -> FeatureErrors:
    """Write both towers in single precision into `folder`, each as one graph.

    Raises `InputError` for an operator that ONNX or onnxruntime does not have, naming it;
    `DataError` if features differ from the model's by more than `TOLERANCE`.
    """
    with on_cpu(model) as module:
        for tower in (_ImageTower(module), _TextTower(module)):
            example = samples.images[:1] if isinstance(tower, _ImageTower) else samples.tokens[:1]
            _export(tower, example.repeat(2, *[1] * (example.ndim - 1)), model, folder)
    return checked(model, folder, samples)


def checked(model: Model, folder: Path, samples: Samples) -> FeatureErrors:
    """`errors_of`; raises `DataError` where one is above `TOLERANCE`."""
    errors = errors_of(model, folder, samples)
    if errors.greatest > TOLERANCE:
        raise DataError(
            f"the ONNX files of {_named(model)} compute other features than the model: they differ "
            f"by up to {errors.greatest:.1e}, and {TOLERANCE:.0e} is allowed"
        )
    return errors


def errors_of(model: Model, folder: Path, samples: Samples) -> FeatureErrors:
    """How far the files of `folder` are from the model."""
    with on_cpu(model) as module:
        expected = unit_features(module, samples, "the model")
    files = OnnxModule(folder, model)
    return FeatureErrors.of(
        unit_features(files, samples, f"the ONNX files of {_named(model)}"), expected
    )


def describe(model: Model, texts: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Write what else is needed to use the files: how images are prepared, the factor of
    similarities, and the tokeniser. Returns what is missing, a sentence each."""
    notes = []
    try:
        tokeniser = fast_tokeniser(model.tokenize, texts)
        tokeniser.save(str(folder / TOKENISER))
    except InputError as reason:
        notes.append(
            f"there is no {TOKENISER}, since {reason}: OpenCLIP's own gives the tokens of texts"
        )
    described = Description(
        images=model.preparation,
        context_length=int(model.tokenize([""]).shape[1]),
        tokeniser=None if notes else TOKENISER,
        scale=model.scale,
        bias=model.bias,
    )
    (folder / DESCRIPTION).write_text(json.dumps(described.as_data(), indent=2) + "\n")
    return tuple(notes)


class OnnxModule(nn.Module):
    """What encodes as OpenCLIP's models do, by the files of a folder."""

    def __init__(self, folder: Path, model: Model) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(model.module.logit_scale.detach().cpu().clone())
        threads = torch.get_num_threads()
        self._image_encoder = session_of(folder / IMAGE_ENCODER, threads)
        self._text_encoder = session_of(folder / TEXT_ENCODER, threads)

    def encode_image(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) fp32 -> (B, D) fp32, L2-normalised."""
        return _run(self._image_encoder, images.float())

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(B, L) int64 -> (B, D) fp32, L2-normalised."""
        return _run(self._text_encoder, tokens)


def onnx_model(folder: Path, model: Model) -> Model:
    """The model with the files of `folder` in the place of its towers."""
    module: Any = OnnxModule(folder, model)
    return replace(model, module=module)


def loading(place: str) -> str:
    """Python that uses the files of a folder."""
    return "\n".join(
        [
            "import numpy as np",
            "import onnxruntime",
            "from tokenizers import Tokenizer",
            "",
            f'tokeniser = Tokenizer.from_file("{place}/{TOKENISER}")',
            'tokens = np.array([one.ids for one in tokeniser.encode_batch(["a photo of a cat"])])',
            f'text = onnxruntime.InferenceSession("{place}/{TEXT_ENCODER}")',
            f'image = onnxruntime.InferenceSession("{place}/{IMAGE_ENCODER}")',
            '(text_features,) = text.run(None, {"tokens": tokens})',
            '(image_features,) = image.run(None, {"images": images})  # model.json: how they look',
            "similarities = image_features @ text_features.T",
        ]
    )


class _ImageTower(nn.Module):
    file, input_name, output_name = IMAGE_ENCODER, "images", "image_features"

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(self.module.encode_image(images), dim=-1)


class _TextTower(nn.Module):
    file, input_name, output_name = TEXT_ENCODER, "tokens", "text_features"

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, tokens: Tensor) -> Tensor:
        return nn.functional.normalize(self.module.encode_text(tokens), dim=-1)


def _export(tower: _ImageTower | _TextTower, example: Tensor, model: Model, folder: Path) -> None:
    try:
        with quiet():
            program = torch.onnx.export(
                tower, (example,), dynamo=True, opset_version=OPSET, verbose=False,
                input_names=[tower.input_name], output_names=[tower.output_name],
                dynamic_shapes=({0: Dim("batch")},),
            )  # fmt: skip
            assert program is not None
            program.save(folder / tower.file)
            _without_origins(folder / tower.file)
    except torch.onnx.OnnxExporterError as error:
        raise InputError(_not_exported(error, model)) from error


def _without_origins(path: Path) -> None:
    """Take out of a file what torch's exporter says of each node: the lines of code it comes from,
    with the paths on this machine, which nobody else should be given, and which would have other
    bytes elsewhere."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input,
                 *graph.output):  # fmt: skip
        del part.metadata_props[:]
    onnx.save(model, path)


def _not_exported(error: Exception, model: Model) -> str:
    said, operators = "", []
    reason: BaseException | None = error
    while reason is not None:
        said = str(reason)
        operators += _OPERATOR.findall(said)
        reason = reason.__cause__
    missing = f"ONNX has no operator for {operators[-1]}" if operators else said.splitlines()[0]
    return (
        f"{_named(model)} cannot be exported to ONNX: {missing}. The form openclip works; "
        "transformers too, if it has such a model"
    )


def _named(model: Model) -> str:
    return model.architecture if isinstance(model.architecture, str) else "the model"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the libraries of ONNX tell about their own work from the terminal."""
    names = ("root", "torch.onnx", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _run(session: Any, batch: Tensor) -> Tensor:
    name = session.get_inputs()[0].name
    (found,) = session.run(None, {name: batch.cpu().numpy()})
    return torch.from_numpy(found)
