"""CLIP-like backbones: OpenCLIP models made from a seed, read from files, written and exported.

An architecture is the name of one of OpenCLIP's, or a model configuration in its own format
(`embed_dim`, `vision_cfg`, `text_cfg`, …). Weights are single precision here, whatever the file
held; lower precision is a matter of training and evaluation (autocast). Adapters are not covered.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import CLIPTextCfg, CLIPVisionCfg, convert_to_custom_text_state_dict
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fomo_dagster.errors import DataError, InputError, nearest

Architecture: TypeAlias = str | dict[str, Any]
StateDict: TypeAlias = Mapping[str, Tensor]
Clip: TypeAlias = open_clip.CLIP | open_clip.CustomTextCLIP

_CONFIGURATION_KEYS = ("embed_dim", "vision_cfg", "text_cfg")
_PICKLED_SUFFIXES = (".pt", ".pth", ".bin")
_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class Model:
    """A model, and what its images and texts must look like."""

    module: Clip
    """OpenCLIP's model in fp32, with `encode_image`, `encode_text` and `logit_scale`."""
    architecture: Architecture
    tokenize: Callable[[list[str]], Tensor]
    """Texts to tokens (N, context length), int64; longer texts are cut. Picklable, and does not
    hold the weights, so that worker processes can have it."""
    image_size: int
    """Pixels of the square image that the model takes."""
    mean: tuple[float, float, float]
    """Subtracted from the red, green and blue of an image in [0, 1]."""
    std: tuple[float, float, float]
    """Divides what remains."""
    resize_mode: str
    """OpenCLIP's name of how an image becomes square at evaluation: shortest (then a centre crop),
    longest (then padding) or squash."""


def create(architecture: Architecture, seed: int) -> Model:
    """A model with random weights: the same for the same architecture and seed.

    Raises `InputError` for an unknown architecture or a configuration that OpenCLIP cannot build.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _build(architecture)
    return _describe(module, architecture, tag=None)


def outline(architecture: Architecture) -> Model:
    """A model whose tensors have shapes and hold nothing (on the meta device), however large.

    Raises `InputError` as `create` does.
    """
    with torch.device("meta"):
        module = _build(architecture, device="meta")
    return _describe(module, architecture, tag=None)


def load(architecture: Architecture, path: Path, tag: str | None = None) -> Model:
    """The model with the weights of a file: safetensors, or a PyTorch file that OpenCLIP could
    have written (weights only; nothing else in it is ever unpickled).

    `tag`: the OpenCLIP tag that the weights came from, where they did: some were trained with
    images normalised in another way than OpenCLIP's default.

    Raises `InputError` for an unknown architecture, `DataError` for a file that cannot be read,
    has tensors missing, left over or of another shape, or a weight that is not finite.
    """
    model = _describe(_build(architecture), architecture, tag)
    _fit(model.module, read(path), origin=str(path))
    return model


def download(architecture: str, tag: str) -> dict[str, Tensor]:
    """The pretrained weights that OpenCLIP lists for the architecture under `tag`.

    Raises `InputError` for an unknown architecture or tag, or one trained with another activation
    than the architecture's; `DataError` where they cannot be fetched (no network) or do not fit.
    """
    _check_name(architecture)
    settings = get_pretrained_cfg(architecture, tag)
    if not settings:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        raise InputError(
            f"OpenCLIP has no pretrained weights {tag!r} for {architecture}: {nearest(tag, tags)}"
        )
    configuration = open_clip.get_model_config(architecture)
    if settings.get("quick_gelu", False) and not configuration.get("quick_gelu", False):
        raise InputError(
            f"the weights {tag!r} were trained with QuickGELU, which {architecture} has not: "
            f"use the architecture {architecture}-quickgelu"
        )
    try:
        path = Path(download_pretrained(settings))
    except Exception as error:  # the libraries below raise whatever their transport raised
        raise DataError(
            f"the pretrained weights {tag!r} of {architecture} could not be downloaded ({error}): "
            "check the network, or give a local file as `weights`"
        ) from error
    weights: dict[str, Tensor] = load(architecture, path, tag).module.state_dict()
    return weights


def save(weights: StateDict, path: Path) -> None:
    """Write weights as safetensors: fp32 (integers as they are), equal bytes for equal weights.

    Raises `DataError` for a weight that is not finite.
    """
    _check_finite(weights, origin=f"the weights for {path}")
    save_file(_portable(weights), path)


def export(weights: StateDict, architecture: Architecture, path: Path) -> None:
    """Write weights as a file for OpenCLIP: safetensors or a PyTorch file, as the suffix says.

    `open_clip.create_model(architecture, pretrained=str(path))` loads it. Where the architecture is
    a configuration, it is written beside the weights under the same name with the suffix .json;
    `open_clip.add_model_config(json_path)` then makes OpenCLIP know it by the file's stem.

    Raises `InputError` for another suffix, or a file name that would hide an architecture of
    OpenCLIP; `DataError` for a weight that is not finite.
    """
    if path.suffix not in (".safetensors", *_PICKLED_SUFFIXES):
        raise InputError(
            f"{path}: OpenCLIP takes its weights from .safetensors or .pt, not {path.suffix!r}"
        )
    if not isinstance(architecture, str):
        if path.stem in open_clip.list_models():
            raise InputError(
                f"{path.name} would give this model the name of OpenCLIP's {path.stem}: "
                "choose another file name"
            )
        path.with_suffix(".json").write_text(json.dumps(architecture, indent=2) + "\n")
    if path.suffix == ".safetensors":
        save(weights, path)
    else:
        _check_finite(weights, origin=f"the weights for {path}")
        torch.save(_portable(weights), path)


def _check_name(architecture: str) -> None:
    names = open_clip.list_models()
    if architecture not in names:
        raise InputError(
            f"OpenCLIP has no architecture {architecture!r}: {nearest(architecture, names)}"
        )


def _check_configuration(configuration: Mapping[str, Any]) -> None:
    """Raise `InputError` naming the first key that is missing, or that OpenCLIP does not have."""
    missing = [key for key in _CONFIGURATION_KEYS if key not in configuration]
    if missing:
        raise InputError(f"the architecture lacks {', '.join(missing)} (OpenCLIP's format)")
    for part, schema in (("vision_cfg", CLIPVisionCfg), ("text_cfg", CLIPTextCfg)):
        fields = [field.name for field in dataclasses.fields(schema)]
        for key in configuration[part]:
            if key not in fields:
                raise InputError(
                    f"the architecture's {part} has no {key!r}: {nearest(key, fields)}"
                )
    if configuration["text_cfg"].get("hf_tokenizer_name"):
        raise InputError(
            "the architecture's text_cfg names a Hugging Face tokeniser, which only OpenCLIP's own "
            "architectures can: give the architecture's name, or leave hf_tokenizer_name out"
        )


@contextmanager
def _without_factory_warnings() -> Iterator[None]:
    """OpenCLIP warns on the root logger that weights are random, which is what was asked for."""

    def is_not_factory(record: logging.LogRecord) -> bool:
        return record.module != "factory"

    root = logging.getLogger()
    root.addFilter(is_not_factory)
    try:
        yield
    finally:
        root.removeFilter(is_not_factory)


def _build(architecture: Architecture, device: str = "cpu") -> Clip:
    """OpenCLIP's module with random weights; its registry of architectures stays as it was."""
    with _without_factory_warnings():
        if isinstance(architecture, str):
            _check_name(architecture)
            return open_clip.create_model(architecture, device=device, pretrained_text=False)
        _check_configuration(architecture)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "open_clip_config.json")
            file.write_text(json.dumps({"model_cfg": architecture}))
            try:
                return open_clip.create_model(
                    f"local-dir:{folder}", device=device, load_weights=False,
                    pretrained_text=False,
                )  # fmt: skip
            except (TypeError, ValueError, AssertionError, RuntimeError) as error:
                raise InputError(f"OpenCLIP cannot build the architecture: {error}") from error


def _describe(module: Clip, architecture: Architecture, tag: str | None) -> Model:
    preprocessing: dict[str, Any] = dict(module.visual.preprocess_cfg)
    if tag is not None and isinstance(architecture, str):
        preprocessing |= get_pretrained_cfg(architecture, tag)
    if preprocessing["interpolation"] != "bicubic":
        raise InputError(
            f"the weights {tag!r} of {architecture} want images resized by "
            f"{preprocessing['interpolation']} interpolation; only bicubic is there"
        )
    size = preprocessing["size"]
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise InputError(
            f"the architecture takes images of {height}×{width}; only square ones work"
        )
    tokenizer = _tokenizer(architecture)
    vocabulary = module.vocab_size if hasattr(module, "vocab_size") else module.text.vocab_size
    if vocabulary < getattr(tokenizer, "vocab_size", 0):
        raise InputError(
            f"text_cfg.vocab_size is {vocabulary}, but the tokeniser has {tokenizer.vocab_size} "
            "tokens: give at least that"
        )
    return Model(
        module=module,
        architecture=architecture,
        tokenize=tokenizer,
        image_size=height,
        mean=tuple(preprocessing["mean"]),
        std=tuple(preprocessing["std"]),
        resize_mode=preprocessing["resize_mode"],
    )


def _tokenizer(architecture: Architecture) -> Any:
    if isinstance(architecture, str):
        return _named_tokenizer(architecture)
    text = architecture["text_cfg"]
    return _simple_tokenizer(
        text.get("context_length", CLIPTextCfg.context_length),
        json.dumps(text.get("tokenizer_kwargs", {}), sort_keys=True),
    )


# Reading a vocabulary takes longer than building a small model; tokenisers keep no state.
@lru_cache(maxsize=8)
def _named_tokenizer(architecture: str) -> Any:
    try:
        return open_clip.get_tokenizer(architecture)
    except Exception as error:  # some architectures fetch their tokeniser from a hub
        raise DataError(f"the tokeniser of {architecture} cannot be had: {error}") from error


@lru_cache(maxsize=8)
def _simple_tokenizer(context_length: int, settings: str) -> Any:
    return open_clip.SimpleTokenizer(context_length=context_length, **json.loads(settings))


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, however OpenCLIP's trainer wrapped them.

    Raises `DataError` for a file that is not there, cannot be read, or holds more than tensors.
    """
    if not path.is_file():
        raise DataError(f"there is no weights file {path}")
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(
            f"{path} cannot be read as weights: {reason} (a file that holds "
            "more than tensors is not read; save its state_dict alone, best as safetensors)"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path} holds no weights by name, but a {type(content).__name__}")
    strange = [name for name, tensor in content.items() if not isinstance(tensor, Tensor)]
    if strange:
        raise DataError(f"{path} holds more than weights: {_listed(strange)}")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _fit(module: Clip, weights: dict[str, Tensor], origin: str) -> None:
    """Put `weights` into `module`; every tensor of both must have its counterpart."""
    weights = convert_state_dict(module, weights)
    if "positional_embedding" in weights and not hasattr(module, "positional_embedding"):
        weights = convert_to_custom_text_state_dict(weights)  # a file older than the text tower
    expected = module.state_dict()
    for name in ("logit_scale", "logit_bias"):  # scalar in some files, of shape (1,) in others
        if name in weights and name in expected and weights[name].numel() == 1:
            weights[name] = weights[name].reshape(expected[name].shape)
    missing = [name for name in expected if name not in weights]
    unexpected = [name for name in weights if name not in expected]
    shapes = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if missing or unexpected or shapes:
        found = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        raise DataError(
            f"{origin} does not fit the architecture: "
            + "; ".join(f"{kind}: {_listed(names)}" for kind, names in found if names)
        )
    _check_finite(weights, origin)
    module.load_state_dict(weights)


def _check_finite(weights: StateDict, origin: str) -> None:
    bad = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise DataError(f"{origin}: not finite: {_listed(bad)}")


def _portable(weights: StateDict) -> dict[str, Tensor]:
    """Contiguous CPU tensors by name, sorted; floating-point ones in fp32."""
    return {
        name: weights[name]
        .detach()
        .to("cpu", torch.float32 if weights[name].is_floating_point() else None)
        .contiguous()
        for name in sorted(weights)
    }


def _listed(names: list[str]) -> str:
    rest = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {rest} more" if rest > 0 else "")
