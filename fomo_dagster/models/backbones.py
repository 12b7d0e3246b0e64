"""CLIP-like backbones: OpenCLIP models made from a seed, read from files, written and exported.

An architecture is the name of one of OpenCLIP's, or a model configuration in its own format
(`embed_dim`, `vision_cfg`, `text_cfg`, …). Weights are single precision here, whatever the file
held; training and evaluation use lower precision through autocast. Adapters are not covered.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.pretrained import download_pretrained
from safetensors.torch import save_file
from torch import Tensor, nn

from fomo_dagster.data.pixels import Preparation
from fomo_dagster.data.transforms import INTERPOLATIONS
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.experiment.weights_folder import read_folder, text_tower_of
from fomo_dagster.models.architectures import check_configuration, check_name, settings_of
from fomo_dagster.models.tokenisers import blank_tokeniser_of, tokeniser_of, tokens_of
from fomo_dagster.models.transformers_clip import with_openclip_names
from fomo_dagster.models.weights import dtype_name, listed, read
from fomo_dagster.store.files import replacing

Architecture: TypeAlias = str | dict[str, Any]
StateDict: TypeAlias = Mapping[str, Tensor]
Clip: TypeAlias = open_clip.CLIP | open_clip.CustomTextCLIP

_PICKLED_SUFFIXES = (".pt", ".pth", ".bin")
_NOT_BUILT = (TypeError, ValueError, AssertionError, RuntimeError, OSError, KeyError)
# What files have beside a model's weights: sizes in OpenAI's, positions in older Hugging Face ones.
_NO_WEIGHTS = (
    "input_resolution", "context_length", "vocab_size",
    "text.transformer.embeddings.position_ids",
)  # fmt: skip


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
    interpolation: str
    """How images are resized: bicubic or bilinear."""
    resize_mode: str
    """OpenCLIP's name of how an image becomes square at evaluation: shortest (then a centre crop),
    longest (then padding) or squash."""

    @property
    def scale(self) -> float:
        """The factor of similarities in the softmax: the inverse temperature."""
        return float(self.module.logit_scale.detach().exp())

    @property
    def bias(self) -> float | None:
        """What is added to scaled similarities before a sigmoid; None for models without it."""
        bias = getattr(self.module, "logit_bias", None)
        return None if bias is None else float(bias.detach())

    @property
    def preparation(self) -> Preparation:
        """How images become its input."""
        return Preparation(
            self.image_size, self.mean, self.std, self.resize_mode, self.interpolation
        )


def create(architecture: Architecture, seed: int, images: Mapping[str, Any] | None = None) -> Model:
    """A model with random weights: the same for the same architecture and seed.

    images: preprocessing that differs from the architecture's (mean, std, interpolation,
    resize_mode).

    Raises `InputError` for an unknown architecture or a configuration that OpenCLIP cannot build.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _build(architecture)
        if isinstance(module, open_clip.CoCa):  # OpenCLIP leaves it as the memory was
            decoder = module.text_decoder
            nn.init.normal_(decoder.text_projection, std=decoder.width**-0.5)
    return _describe(module, architecture, images=images)


def meta_model(architecture: Architecture) -> Model:
    """A model whose tensors have shapes but no data (on the meta device), however large, and whose
    tokens have the right length but are all 0.

    Raises `InputError` as `create` does, and if only a folder of weights states the architecture.
    """
    if not architecture:
        raise InputError(
            "the architecture of another model that the method looks at is known from its folder "
            "of weights alone: declare it, with a file of weights"
        )
    with torch.device("meta"):
        module = _build(architecture, device="meta")
    return _describe(module, architecture, tokenize=blank_tokeniser_of(architecture))


def load(
    architecture: Architecture,
    path: Path,
    tag: str | None = None,
    images: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Model:
    """The model with the weights of a file: safetensors, or a PyTorch file that OpenCLIP could
    have written (weights only; nothing else in it is ever unpickled).

    `tag`: the OpenCLIP tag that the weights came from, where they did: some were trained with
    images normalised in another way than OpenCLIP's default. `images`: as of `create`, over both.
    `folder`: where the Hugging Face text tower and tokeniser of a configuration lie.

    Raises `InputError` for an unknown architecture or tag, `DataError` for a file that cannot be
    read, has tensors missing, left over or of another shape, or a weight that is not finite.
    """
    model = _describe(_build(architecture, folder), architecture, tag, images, folder)
    _fit(model.module, read(path), origin=str(path))
    return model


def load_folder(folder: Path) -> Model:
    """The model that a folder of weights holds; see `WeightsFolder`. Raises as `load` does."""
    found = read_folder(folder)
    architecture = found.architecture
    module = _build(architecture, folder)
    model = _describe(module, architecture, images=found.images, folder=folder)
    weights = {name: tensor for file in found.weights for name, tensor in read(file).items()}
    if found.is_transformers:
        weights = with_openclip_names(weights, str(folder))
    _fit(module, weights, origin=str(folder))
    return model


def download(architecture: str, tag: str) -> dict[str, Tensor]:
    """The pretrained weights that OpenCLIP lists for the architecture under `tag`.

    Raises `InputError` for an unknown architecture or tag, or one trained with another activation
    than the architecture's; `DataError` where they cannot be fetched (no network) or do not fit.
    """
    settings = settings_of(architecture, tag)
    try:
        path = Path(download_pretrained(settings))
    except Exception as error:  # the libraries below raise whatever their transport raised
        raise DataError(
            f"the pretrained weights {tag!r} of {architecture} could not be downloaded ({error}): "
            "check the network, or give a local file as `weights`"
        ) from error
    weights: dict[str, Tensor] = load(architecture, path, tag).module.state_dict()
    return weights


def save(weights: StateDict, path: Path, precision: str = "fp32") -> None:
    """Write weights as safetensors: fp32 or bf16 (integers as they are), equal bytes for equal
    weights.

    Raises `DataError` for a weight that is not finite, or is none in bf16.
    """
    portable = _portable(weights, torch.bfloat16 if precision == "bf16" else torch.float32)
    _check_finite(portable, origin=f"the weights for {path}")
    save_file(portable, path)


def export(weights: StateDict, architecture: Architecture, path: Path) -> None:
    """Write weights as a file for OpenCLIP: safetensors or a PyTorch file, as the suffix says.

    `open_clip.create_model(architecture, pretrained=str(path))` loads it. Where the architecture is
    a configuration, it is written beside the weights under the same name with the suffix .json;
    `open_clip.add_model_config(json_path)` then makes OpenCLIP know it by the file's stem. Each
    replaces what was there whole or not at all.

    Raises `InputError` for another suffix, or a file name that would hide an architecture of
    OpenCLIP; `DataError` for a weight that is not finite.
    """
    if path.suffix not in (".safetensors", *_PICKLED_SUFFIXES):
        raise InputError(
            f"{path}: OpenCLIP takes its weights from .safetensors or .pt, not {path.suffix!r}"
        )
    _check_finite(weights, origin=f"the weights for {path}")
    with ExitStack() as files:
        if not isinstance(architecture, str):
            if path.stem in open_clip.list_models():
                raise InputError(
                    f"{path.name} would give this model the name of OpenCLIP's {path.stem}: "
                    "choose another file name"
                )
            described = json.dumps(architecture, indent=2) + "\n"
            beside = files.enter_context(replacing(path.with_suffix(".json"), named=True))
            beside.write_text(described)
        written = files.enter_context(replacing(path, named=True))  # goes first to its place
        write = save_file if path.suffix == ".safetensors" else torch.save
        write(_portable(weights), written)


def load_exported(architecture: Architecture, path: Path) -> Clip:
    """The module of a file that `export` wrote, with the configuration beside it, if it has one.

    Raises as `load` does, and `InputError` for a configuration whose text tower others describe.
    """
    if not isinstance(architecture, str):
        architecture = json.loads(path.with_suffix(".json").read_text())
    module = _build(architecture)
    _fit(module, read(path), origin=str(path))
    return module.eval()


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


def _build(architecture: Architecture, folder: Path | None = None, device: str = "cpu") -> Clip:
    """OpenCLIP's module with random weights; its registry of architectures stays as it was."""
    with _without_factory_warnings():
        if isinstance(architecture, str):
            check_name(architecture)
            try:
                return open_clip.create_model(architecture, device=device, pretrained_text=False)
            except OSError as error:  # some have text towers that a hub describes
                raise DataError(f"{architecture} cannot be built: {error}") from error
        check_configuration(architecture)
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary, "open_clip_config.json")
            described = _with_text_tower(architecture, folder)
            file.write_text(json.dumps({"model_cfg": described}))
            try:
                return open_clip.create_model(
                    f"local-dir:{temporary}", device=device, load_weights=False,
                    pretrained_text=False,
                )  # fmt: skip
            except _NOT_BUILT as error:
                raise InputError(f"OpenCLIP cannot build the architecture: {error}") from error


def _with_text_tower(architecture: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """The configuration, a Hugging Face text tower in it described by files of the folder."""
    text = architecture["text_cfg"]
    if not text.get("hf_model_name"):
        return architecture
    if folder is None:
        raise InputError(
            f"the text tower is {text['hf_model_name']!r} of Hugging Face, which only OpenCLIP's "
            "own architectures and folders of weights can have: give the architecture's name, or "
            "the folder"
        )
    tower = str(text_tower_of(architecture, folder))
    return {**architecture, "text_cfg": {**text, "hf_model_name": tower}}


def _describe(
    module: Clip,
    architecture: Architecture,
    tag: str | None = None,
    images: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    tokenize: Callable[[list[str]], Tensor] | None = None,
) -> Model:
    preprocessing: dict[str, Any] = dict(module.visual.preprocess_cfg)
    if tag is not None and isinstance(architecture, str):
        preprocessing |= settings_of(architecture, tag)
    preprocessing |= images or {}
    if preprocessing["interpolation"] not in INTERPOLATIONS:
        raise InputError(
            f"{architecture} wants images resized by {preprocessing['interpolation']} "
            f"interpolation; there is {' and '.join(INTERPOLATIONS)}"
        )
    size = preprocessing["size"]
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise InputError(
            f"the architecture takes images of {height}×{width}; only square ones work"
        )
    if tokenize is None:
        tokenize = tokeniser_of(architecture, folder)
        vocabulary = module.vocab_size if hasattr(module, "vocab_size") else module.text.vocab_size
        tokens = 0 if isinstance(architecture, str) else tokens_of(tokenize)
        if vocabulary < tokens:
            raise InputError(
                f"text_cfg.vocab_size is {vocabulary}, but the tokeniser has {tokens} tokens: give "
                "at least that"
            )
    return Model(
        module=module,
        architecture=architecture,
        tokenize=tokenize,
        image_size=height,
        mean=tuple(preprocessing["mean"]),
        std=tuple(preprocessing["std"]),
        interpolation=preprocessing["interpolation"],
        resize_mode=preprocessing["resize_mode"],
    )


def _fit(module: Clip, weights: dict[str, Tensor], origin: str) -> None:
    """Put `weights` into `module`; every tensor of both must have its counterpart."""
    weights = convert_state_dict(module, weights)
    if "positional_embedding" in weights and not hasattr(module, "positional_embedding"):
        weights = convert_to_custom_text_state_dict(weights)  # a file older than the text tower
    expected = module.state_dict()
    weights = {k: v for k, v in weights.items() if k in expected or k not in _NO_WEIGHTS}
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
    # Copied into real numbers, quantised weights would be taken for values without their scale.
    kinds = [
        f"{name} {dtype_name(weights[name])} instead of {dtype_name(tensor)}"
        for name, tensor in expected.items()
        if name in weights and tensor.is_floating_point() and not weights[name].is_floating_point()
    ]
    if missing or unexpected or shapes or kinds:
        found = (
            ("missing", missing), ("unexpected", unexpected), ("of another shape", shapes),
            ("of another kind", kinds),
        )  # fmt: skip
        raise DataError(
            f"{origin} does not fit the architecture: "
            + "; ".join(f"{kind}: {listed(names)}" for kind, names in found if names)
        )
    _check_finite(weights, origin)
    module.load_state_dict(weights)


def _check_finite(weights: StateDict, origin: str) -> None:
    bad = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise DataError(f"{origin}: not finite: {listed(bad)}")


def _portable(weights: StateDict, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Contiguous CPU tensors by name, sorted; floating-point ones of the type."""
    return {
        name: weights[name]
        .detach()
        .to("cpu", dtype if weights[name].is_floating_point() else None)
        .contiguous()
        for name in sorted(weights)
    }
