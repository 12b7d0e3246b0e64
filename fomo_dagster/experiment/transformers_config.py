"""What transformers' CLIPModel writes next to its weights, in OpenCLIP's terms.

What a file leaves out has the value that CLIPConfig and CLIPImageProcessor give it. Preprocessing
that OpenCLIP cannot express is refused: crops smaller than the resized image, and pixels that are
not brought to [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fomo_dagster.errors import InputError

CONFIG = "config.json"
RESAMPLING = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_DONE_TO_ALL = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255}
DEFAULT_EPSILON = 1e-5
END_OF_TEXT = 49407  # of OpenAI's vocabulary, the last token
UNUSED_END_OF_TEXT = 2  # in older files: the model then looks for the highest token, as OpenCLIP


def architecture_from(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """CLIPConfig as a model configuration of OpenCLIP's.

    Raises `InputError` for a kind of model that OpenCLIP cannot build or whose texts it would read
    in another way.
    """
    if config.get("model_type") != "clip":
        raise InputError(
            f"{path} is of the type {config.get('model_type')!r}, but of transformers' "
            "types only clip is read: save the model in OpenCLIP's format"
        )
    vision, text = _part(config, "vision_config"), _part(config, "text_config")
    activations = {part.get("hidden_act", "quick_gelu") for part in (vision, text)}
    if activations not in ({"quick_gelu"}, {"gelu"}):
        raise InputError(
            f"{path}: hidden_act is {' and '.join(sorted(activations))}, and quick_gelu or gelu "
            "was expected in both towers"
        )
    end = text.get("eos_token_id", END_OF_TEXT)
    if end not in (END_OF_TEXT, UNUSED_END_OF_TEXT):
        raise InputError(
            f"{path}: text_config.eos_token_id is {end}, and {END_OF_TEXT} was expected: "
            "such folders are read with OpenAI's vocabulary only; save the model in "
            "OpenCLIP's format, with its tokeniser"
        )
    width = vision.get("hidden_size", 768)
    vision_cfg = {
        "image_size": vision.get("image_size", 224),
        "patch_size": vision.get("patch_size", 32),
        "width": width,
        "layers": vision.get("num_hidden_layers", 12),
        "head_width": width // vision.get("num_attention_heads", 12),
        "mlp_ratio": _ratio(vision.get("intermediate_size", 3072), width),
        **_norm(vision),
    }
    width = text.get("hidden_size", 512)
    text_cfg = {
        "context_length": text.get("max_position_embeddings", 77),
        "vocab_size": text.get("vocab_size", 49408),
        "width": width,
        "heads": text.get("num_attention_heads", 8),
        "layers": text.get("num_hidden_layers", 12),
        "mlp_ratio": _ratio(text.get("intermediate_size", 2048), width),
        **_norm(text),
    }
    return {
        "embed_dim": config.get("projection_dim", 512),
        "quick_gelu": activations == {"quick_gelu"},
        "vision_cfg": vision_cfg,
        "text_cfg": text_cfg,
    }


def images_from(told: Mapping[str, Any], image_size: int, path: Path) -> dict[str, Any]:
    """CLIPImageProcessor's settings as keys of `Preprocessing`; raises `InputError`."""
    told = told.get("image_processor", told)  # as newer versions nest it
    for key, expected in _DONE_TO_ALL.items():
        if told.get(key, expected) != expected:
            raise InputError(f"{path}: {key} is {told[key]}, and only {expected} is there")
    images: dict[str, Any] = {}
    if not told.get("do_normalize", True):
        images = {"mean": [0.0] * 3, "std": [1.0] * 3}
    else:
        for key, theirs in (("mean", "image_mean"), ("std", "image_std")):
            if told.get(theirs) is not None:
                images[key] = told[theirs]
    resample = told.get("resample")
    if resample is not None:
        if resample not in RESAMPLING:
            raise InputError(
                f"{path}: resample is {resample}, and 2 (bilinear) or 3 (bicubic) was expected"
            )
        images["interpolation"] = RESAMPLING[resample]
    sides = _sides(told.get("size"))
    if told.get("do_center_crop", True):
        sides |= _sides(told.get("crop_size"))
    elif sides:
        images["resize_mode"] = "squash"
    if sides - {image_size}:
        raise InputError(
            f"{path}: images are resized or cut to {', '.join(map(str, sorted(sides)))} pixels, "
            f"and the model takes {image_size}: correct the file"
        )
    return images


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    older = config.get(f"{name}_dict")  # goes first where it is there
    found = older if older is not None else config.get(name)
    return found if isinstance(found, dict) else {}


def _ratio(hidden: int, width: int) -> float:
    """By which OpenCLIP multiplies the width, rounding down, to get the hidden units."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _norm(part: Mapping[str, Any]) -> dict[str, Any]:
    epsilon = part.get("layer_norm_eps", DEFAULT_EPSILON)
    return {} if epsilon == DEFAULT_EPSILON else {"norm_kwargs": {"eps": epsilon}}


def _sides(size: Any) -> set[int]:
    if isinstance(size, int):
        return {size}
    return set(size.values()) if isinstance(size, dict) else set()
