"""What OpenCLIP knows: its architectures and tags by name, and the keys of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import open_clip
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.pretrained import get_pretrained_cfg

from fomo_dagster.errors import InputError, nearest

_CONFIGURATION_KEYS = ("embed_dim", "vision_cfg", "text_cfg")


def check_name(architecture: str) -> None:
    """Raise `InputError` for what is no architecture of OpenCLIP's."""
    names = open_clip.list_models()
    if architecture not in names:
        raise InputError(
            f"OpenCLIP has no architecture {architecture!r}: {nearest(architecture, names)}"
        )


def settings_of(architecture: str, tag: str) -> dict[str, Any]:
    """What OpenCLIP says of pretrained weights: how images look, where the weights are.

    Raises `InputError` for an unknown architecture or tag, or one trained with another activation
    than the architecture's.
    """
    check_name(architecture)
    settings: dict[str, Any] = get_pretrained_cfg(architecture, tag)
    if not settings:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        raise InputError(
            f"OpenCLIP has no pretrained weights {tag!r} for {architecture}: {nearest(tag, tags)}"
        )
    configuration = open_clip.get_model_config(architecture)
    if settings.get("quick_gelu", False) and not configuration.get("quick_gelu", False):
        raise InputError(
            f"the weights {tag!r} were trained with QuickGELU, which {architecture} does "
            f"not have: use the architecture {architecture}-quickgelu"
        )
    return settings


def check_configuration(configuration: Mapping[str, Any]) -> None:
    """Raise `InputError` naming the first key that is missing, or that OpenCLIP does not have."""
    missing = [key for key in _CONFIGURATION_KEYS if key not in configuration]
    if missing:
        raise InputError(f"the architecture lacks {', '.join(missing)} (OpenCLIP's format)")
    for part, schema in (("vision_cfg", CLIPVisionCfg), ("text_cfg", CLIPTextCfg)):
        if not isinstance(configuration[part], Mapping):
            raise InputError(
                f"the architecture's {part} is {configuration[part]!r}: keys and values were "
                "expected, in OpenCLIP's format"
            )
        hints = get_type_hints(schema)
        for key, value in configuration[part].items():
            if key not in hints:
                raise InputError(f"the architecture's {part} has no {key!r}: {nearest(key, hints)}")
            types = _types_of(hints[key])
            if value is not None and not isinstance(value, types):
                raise InputError(
                    f"the architecture's {part}.{key} is {value!r}, which OpenCLIP does not take: "
                    f"{' or '.join(dict.fromkeys(one.__name__ for one in types))} was expected"
                )
    size, patch = (configuration["vision_cfg"].get(key) for key in ("image_size", "patch_size"))
    if isinstance(size, int) and isinstance(patch, int) and patch > size:
        raise InputError(
            f"the architecture's vision_cfg.patch_size is {patch}, above its image_size, which is "
            f"{size}: lower it"
        )


def _types_of(annotation: Any) -> tuple[type, ...]:
    """What a value of an annotation may be, as far as it is of numbers, texts and lists."""
    origin = get_origin(annotation)
    if origin in (tuple, list):
        return (tuple, list)
    if origin in (Union, UnionType):
        return tuple(one for part in get_args(annotation) for one in _types_of(part))
    if annotation is float:
        return (float, int)
    return (annotation,) if annotation in (int, str, bool, NoneType) else (object,)
