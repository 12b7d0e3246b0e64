"""Which of a model's parameters a stage trains, by tower.

The image tower is OpenCLIP's `visual`; everything else is the text tower, the logit scale with it
(`freeze_features` and `freeze_head` of FoMo-in-Flux, arXiv 2408.14471).
"""

from __future__ import annotations

from torch import nn

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.models.backbones import Clip

_LOCKED = {"all": None, "locked_image": "image", "locked_text": "text"}


def select_trained(module: Clip, train: str) -> dict[str, nn.Parameter]:
    """Make the module ready to train, and return the parameters that shall, by name.

    `train`: all, locked_image or locked_text. A locked parameter asks for no gradient, so that no
    backward pass is paid for it, and a locked tower is in evaluation mode: no dropout, and
    statistics of batch norms that stay as they are. What the architecture itself keeps fixed (a
    sine-cosine position embedding) stays so.

    Raises `InputError` for another value of `train`.
    """
    if train not in _LOCKED:
        raise InputError(f"method.train has no {train!r}: {nearest(train, _LOCKED)}")
    locked = _LOCKED[train]
    module.train()
    for name, part in module.named_children():
        if _tower(name) == locked:
            part.eval()
    for name, parameter in module.named_parameters():
        if _tower(name) == locked:
            parameter.requires_grad_(False)
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def _tower(name: str) -> str:
    return "image" if name.partition(".")[0] == "visual" else "text"
