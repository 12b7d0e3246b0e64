"""Which layer of its tower a parameter belongs to, counted from its input as BEiT counts
(arXiv 2106.08254). What comes before the first block is layer 0, block i is layer i, and what comes
after the last block is a layer of its own. The towers are counted separately.

OpenCLIP's transformers and ResNets are recognised by names, where every residual block is a block.
timm counts its own towers. Text towers of Hugging Face are not covered.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from timm.models import group_parameters
from torch import nn

from fomo_dagster.errors import InputError
from fomo_dagster.methods.trained_parameters.selecting import tower_of
from fomo_dagster.models.backbones import Clip

_Place: TypeAlias = tuple[float, ...]  # in the order of the layers

_BEFORE, _AFTER = (-math.inf,), (math.inf,)
_BLOCKS = (re.compile(r"transformer\.resblocks\.(\d+)\."), re.compile(r"layer(\d+)\.(\d+)\."))
_FIRST = re.compile(
    r"(class_embedding|cls_emb|positional_embedding|token_embedding|patchnorm_pre_ln|conv\d|bn\d"
    r"|ln_pre)(\.|$)"
)
_OF_NO_TOWER = ("logit_scale", "logit_bias")


def distances_from_the_end(module: Clip, trained: Iterable[str]) -> dict[str, int]:
    """How many layers after its own has the tower of each parameter, by name: 0 for those of the
    last layer, and for the logit scale and bias. Towers without `trained` parameters are left out.

    Raises `InputError` for a tower whose blocks are not known by their names.
    """
    names = [name for name, _ in module.named_parameters() if name not in _OF_NO_TOWER]
    found = dict.fromkeys(_OF_NO_TOWER, 0)
    for tower in sorted({tower_of(name) for name in trained if name not in _OF_NO_TOWER}):
        places = _places(module, [name for name in names if tower_of(name) == tower], tower)
        layers = sorted({*places.values(), _AFTER})
        numbers = {place: number for number, place in enumerate(reversed(layers))}
        found |= {name: numbers[place] for name, place in places.items()}
    return found


def _places(module: Clip, names: list[str], tower: str) -> Mapping[str, _Place]:
    part = module.visual if tower == "image" else getattr(module, "text", module)
    prefix = {"image": "visual.", "text": "text." if part is not module else ""}[tower]
    place = _placed_by_timm(part) or _placed_by_name
    places = {name: place(name.removeprefix(prefix)) for name in names}
    if not set(places.values()) - {_BEFORE, _AFTER}:
        raise InputError(
            f"optimiser.layer_decay depends on depth, but the blocks of the {tower} "
            f"tower ({type(part).__name__}) are not known by their names: leave it out, "
            "or use a tower of OpenCLIP or timm"
        )
    return places


def _placed_by_name(name: str) -> _Place:
    for blocks in _BLOCKS:
        block = blocks.match(name)
        if block is not None:
            return tuple(map(float, block.groups()))
    return _BEFORE if _FIRST.match(name) else _AFTER


def _placed_by_timm(tower: nn.Module) -> Callable[[str], _Place] | None:
    trunk = getattr(tower, "trunk", None)
    if trunk is None or not hasattr(trunk, "group_matcher"):
        return None
    numbers = group_parameters(trunk, trunk.group_matcher(coarse=False), reverse=True)
    return lambda name: (
        (float(numbers[name.removeprefix("trunk.")]),) if name.startswith("trunk.") else _AFTER
    )
