"""A folder of weights in Hugging Face's layout: which model it holds, without reading a weight.

With `open_clip_config.json` it is OpenCLIP's; with a `config.json` of the type clip, one that
transformers' CLIPModel wrote. Nothing that a folder names is fetched from elsewhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.backbone import Backbone, Preprocessing
from fomo_dagster.experiment.transformers_config import CONFIG, architecture_from, images_from

OPENCLIP = "open_clip_config.json"
# In the order in which OpenCLIP looks for them.
WEIGHTS = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth", "model.safetensors",
    "pytorch_model.bin", "pytorch_model.pth", "model.pth",
)  # fmt: skip
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
TOLD_BY = ("*.json", "*.txt", "*.model")  # configurations and vocabularies


@dataclass(frozen=True)
class WeightsFolder:
    """A model in a folder.

    architecture: in OpenCLIP's format. images: keys of `Preprocessing`, those that the folder says.
    weights: the files that are read. is_transformers: whether tensors have transformers' names.
    """

    architecture: dict[str, Any]
    images: dict[str, Any]
    weights: tuple[Path, ...]
    is_transformers: bool


def read_folder(folder: Path) -> WeightsFolder:
    """What a folder holds; raises `InputError` naming what is not there or not supported."""
    if (path := folder / OPENCLIP).is_file():
        found = _json(path)
        architecture = found.get("model_cfg")
        if not isinstance(architecture, dict):
            raise InputError(f"{path} has no model_cfg, the model's configuration")
        told, is_transformers = _openclips_images(found.get("preprocess_cfg") or {}, path), False
    elif (path := folder / CONFIG).is_file():
        architecture, told, is_transformers = architecture_from(_json(path), path), {}, True
        size = architecture["vision_cfg"]["image_size"]
        for name in PROCESSORS:
            if (folder / name).is_file():
                told = images_from(_json(folder / name), size, folder / name)
                break
    else:
        raise InputError(
            f"{folder} has neither {OPENCLIP} nor {CONFIG}: give a file as `weights`, with its "
            "`architecture`"
        )
    try:
        images = Preprocessing(**told).model_dump(mode="json", exclude_none=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"the preprocessing in {folder}: {where} is {first['input']!r}: {first['msg']}"
        ) from error
    return WeightsFolder(architecture, images, _weights(folder), is_transformers)


def located(backbone: Backbone, base: Path) -> Backbone:
    """The backbone with the path of its weights made whole, where it is relative to `base`."""
    if backbone.weights is None:
        return backbone
    return backbone.model_copy(update={"weights": base / backbone.weights.expanduser()})


def described(backbone: Backbone) -> Backbone:
    """The backbone with the architecture and preprocessing of its folder, where it has one.

    Raises `InputError` if the folder and the declaration do not go together.
    """
    path = backbone.weights
    if path is None or not path.is_dir():
        if backbone.architecture:
            return backbone
        raise InputError(
            f"backbone {backbone.name!r} has no architecture. It can be left out only "
            f"for a folder of weights, and {path} is not a folder"
        )
    if backbone.architecture:
        raise InputError(
            f"backbone {backbone.name!r} names an architecture, but the folder {path} "
            "states its own: leave out backbone.architecture, or give a file"
        )
    found = read_folder(path)
    preprocessing = Preprocessing(**{**found.images, **backbone.images})
    return backbone.model_copy(
        update={"architecture": found.architecture, "preprocessing": preprocessing}
    )


def files_of(folder: Path) -> dict[str, Path]:
    """Every file that says what the folder's model computes, by its path within."""
    found = read_folder(folder)
    tower = text_tower_of(found.architecture, folder)
    files = {path for pattern in TOLD_BY for path in folder.glob(pattern)} | set(found.weights)
    if tower is not None:
        files.add(tower / CONFIG)
    return {str(path.relative_to(folder)): path for path in sorted(files)}


def text_tower_of(architecture: dict[str, Any], folder: Path) -> Path | None:
    """The folder that describes a Hugging Face text tower: within or `folder` itself.

    None if the text tower is OpenCLIP's own. Raises `InputError` if it is not described.
    """
    name = (architecture.get("text_cfg") or {}).get("hf_model_name")
    if not name:
        return None
    for place in (folder / str(name).rpartition("/")[2], folder):
        if (place / CONFIG).is_file():
            return place
    raise InputError(
        f"the text tower of {folder} is {name!r} of Hugging Face, but the folder "
        f"does not describe it: put its {CONFIG} into "
        f"{folder / str(name).rpartition('/')[2]}"
    )


def _weights(folder: Path) -> tuple[Path, ...]:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return (folder / name,)
    for index in INDEXES:
        if not (folder / index).is_file():
            continue
        parts = _json(folder / index).get("weight_map")
        names = sorted({str(n) for n in parts.values()}) if isinstance(parts, dict) else []
        away = [n for n in names if Path(n).name != n or not (folder / n).is_file()]
        if away or not names:
            raise InputError(
                f"{folder / index} names no weights in its folder"
                if not names
                else f"{folder / index} names weights that are not in its folder: {', '.join(away)}"
            )
        return tuple(folder / name for name in names)
    raise InputError(
        f"{folder} has no weights: one of {', '.join((*WEIGHTS, *INDEXES))} was expected"
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold keys and values, not a {type(content).__name__}")
    return content


def _openclips_images(told: dict[str, Any], path: Path) -> dict[str, Any]:
    if told.get("resize_mode") == "longest" and told.get("fill_color"):
        raise InputError(
            f"{path}: images are padded with {told['fill_color']}, and only 0 is there"
        )
    images = {key: told[key] for key in Preprocessing.model_fields if told.get(key) is not None}
    if images.get("interpolation") == "random":  # of training alone; OpenCLIP evaluates so
        images["interpolation"] = "bicubic"
    return images
