"""Tensors by name from files of weights, whoever wrote them, without running anything in them."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from fomo_dagster.errors import DataError
from fomo_dagster.weights_files import format_of

_NAMED_AT_MOST = 5
_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")  # of data parallelism and `torch.compile`
_READ_DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
_SAVE = "save the model's state_dict, best as safetensors"


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, however OpenCLIP's trainer wrapped them.

    The file's first bytes say what it is. Raises `DataError` for a file that does not exist, cannot
    be read, or holds more than tensors. Nothing in it is run.
    """
    content: Any
    written_as = format_of(path)
    try:
        if written_as == "safetensors":
            content = load_file(path)
        else:
            # Of a path, PyTorch would believe the suffix; of pickles of old, it warns.
            with path.open("rb") as file, warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # of bytes that are no weights, an unpickler may raise any
        reason = str(error).partition("\n")[0].partition(". ")[0]
        way_out = (
            "it was cut off or altered: download or save it again"
            if written_as == "safetensors"
            else "a file that was cut off, or holds more than tensors, is not read: download it "
            "again, or save its state_dict alone, best as safetensors"
        )
        raise DataError(
            f"{path} cannot be read as weights: {type(error).__name__}: {reason} ({way_out})"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        held = "is empty" if content == {} else f"holds a {type(content).__name__}"
        raise DataError(f"{path} {held}, and weights by their names were expected: {_SAVE}")
    strange = [
        str(name)
        for name, tensor in content.items()
        if not (isinstance(name, str) and isinstance(tensor, Tensor))
    ]
    if strange:
        raise DataError(f"{path} holds more than weights: {listed(strange)}; {_SAVE}")
    odd = [f"{name} ({why})" for name, tensor in content.items() if (why := _why_odd(tensor))]
    if odd:
        raise DataError(
            f"{path} holds tensors that are not read as weights: {listed(odd)}; save them dense, "
            "as float32, float16 or bfloat16"
        )
    return {_WRAPPERS.sub("", name): tensor for name, tensor in content.items()}


def _why_odd(tensor: Tensor) -> str:
    """Why a tensor cannot be taken for weights as it is; empty if it can."""
    if tensor.is_meta:
        return "without values"
    if tensor.is_nested or tensor.layout != torch.strided:
        return "nested" if tensor.is_nested else "sparse"
    return "" if tensor.dtype in _READ_DTYPES else dtype_name(tensor)


def dtype_name(tensor: Tensor) -> str:
    """As PyTorch calls it: float32, int8, …"""
    return str(tensor.dtype).removeprefix("torch.")


def listed(names: list[str]) -> str:
    """The first names, and how many more there are."""
    rest = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {rest} more" if rest > 0 else "")
