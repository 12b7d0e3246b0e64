"""The precision in which the towers compute. Weights, gradients, loss and optimiser are fp32.

With tf32, numbers are fp32 everywhere, and tensor cores multiply their matrices with ten bits of
mantissa: the towers' and the loss's, forward and backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from fomo_dagster.errors import InputError

_LOWER = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast_of(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    """Makes the context of a forward pass in `precision`: fp32 and tf32 (none), bf16 or fp16."""
    dtype = _LOWER.get(precision)
    return lambda: nullcontext() if dtype is None else torch.autocast(device.type, dtype)


@contextmanager
def matrix_products(precision: str, device: torch.device) -> Iterator[None]:
    """Within it, matrices of fp32 are multiplied as `precision` says; restored at the end.

    Raises `InputError` for tf32 on a device other than CUDA: it would be fp32 there, and the same
    experiment would give different weights.
    """
    if precision != "tf32":
        yield
        return
    if device.type != "cuda":
        raise InputError(
            "precision is tf32, which only NVIDIA's tensor cores have, but the device "
            f"is {device}: use fp32 or bf16, or a CUDA device"
        )
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
