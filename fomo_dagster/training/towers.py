"""Ways to run a model's towers that change weights only by rounding: gradient checkpointing and
compilation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from fomo_dagster.errors import InputError
from fomo_dagster.models.backbones import Clip

Encode: TypeAlias = Callable[[Tensor], Tensor]


def checkpoint_gradients(module: Clip) -> None:
    """Let the towers keep only the input of each block, and compute its other activations again in
    the backward pass (arXiv 1604.06174). Gradients are the same, including what is random.

    Raises `InputError` for an image tower that cannot do so: OpenCLIP's ResNets, some of timm's.
    """
    module.set_grad_checkpointing(True)
    tower = module.visual
    if not any(getattr(part, "grad_checkpointing", False) for part in tower.modules()):
        raise InputError(
            "execution.gradient_checkpointing is on, but the image tower "
            f"({type(tower).__name__}) has none: leave it out, and make "
            "execution.micro_batch_size smaller"
        )


def compiler_for(device: torch.device) -> Callable[[Encode], Encode]:
    """What compiles the forward and backward pass of a tower, by torch's own compiler.

    Numbers are drawn as without it, and each shape of a batch has a program of its own, so that
    resuming makes the same. The module itself stays as it is, and so do its weights' names. What
    was compiled before, of other models, is forgotten.
    Raises `InputError` if nothing can be compiled.
    """
    torch.compiler.reset()
    compiled = torch.compile(lambda x: 2 * x.sin(), dynamic=False)
    try:
        compiled(torch.ones(8, device=device))
    except Exception as error:  # whatever compilers that are not there make torch raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"execution.compile is on, but torch.compile does not work for {device} on this "
            f"machine ({reason}): install a compiler (g++; Triton for CUDA), or leave it out"
        ) from error

    def compile_tower(encode: Encode) -> Encode:
        made: Encode = torch.compile(encode, dynamic=False, options={"fallback_random": True})
        return made

    return compile_tower
