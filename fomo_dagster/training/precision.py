"""In which precision the towers compute; weights, gradients, loss and optimiser are fp32."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

_LOWER = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast_of(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    """Makes the context of a forward pass in `precision`: fp32 (none), bf16 or fp16."""
    dtype = _LOWER.get(precision)
    return lambda: nullcontext() if dtype is None else torch.autocast(device.type, dtype)
