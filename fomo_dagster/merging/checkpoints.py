"""Going through several checkpoints tensor by tensor, to make another of them.

The inputs are memory-mapped safetensors and the output is written as it is made, so that no
checkpoint is ever held as a whole. What is made of the tensors is the caller's: a technique is a
function of the tensors that share a name.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fomo_dagster.errors import DataError

Combine: TypeAlias = Callable[[Sequence[Tensor]], Tensor]
Layout: TypeAlias = dict[str, tuple[str, tuple[int, ...]]]
"""The kind (F32, I64, …) of each tensor as the output holds it, and its shape."""

_FLOATING = ("F64", "F32", "F16", "BF16")
_BYTES = {"I64": 8, "F32": 4, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_NAMED_AT_MOST = 5


def combine_checkpoints(inputs: Sequence[Path], combine: Combine, output: Path) -> None:
    """Write the checkpoint whose tensors `combine` makes of those of the inputs, in their order.

    `combine` gets float64 tensors of one shape and returns one; it is stored as fp32. Integers
    (counters) are passed on, and must be the same everywhere. The bytes are those that
    `safetensors.torch.save_file` writes for the same tensors.

    Raises `DataError` for a file that cannot be read, tensors that are missing somewhere or differ
    in shape or kind, integers that differ, and values that are not finite, before or after.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(_opened(path)) for path in inputs]
        layout = _layout(inputs[0], files[0])
        for path, file in zip(inputs[1:], files[1:], strict=True):
            _check_same(inputs[0], layout, path, _layout(path, file))
        names = sorted(layout, key=lambda name: (list(_BYTES).index(layout[name][0]), name))
        with output.open("wb") as stream:
            stream.write(_header({name: layout[name] for name in names}))
            for name in names:
                tensors = [file.get_tensor(name) for file in files]
                merged = _merged(name, tensors, inputs, combine)
                stream.write(merged.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _merged(
    name: str, tensors: Sequence[Tensor], inputs: Sequence[Path], combine: Combine
) -> Tensor:
    if not tensors[0].is_floating_point():
        for path, tensor in zip(inputs, tensors, strict=True):
            if not torch.equal(tensor, tensors[0]):
                raise DataError(
                    f"{name} holds integers that differ between {inputs[0]} and {path}: they have "
                    "no merge"
                )
        return tensors[0]
    for path, tensor in zip(inputs, tensors, strict=True):
        if not bool(torch.isfinite(tensor).all()):
            raise DataError(f"{name} of {path} is not finite: a merge would spread it")
    merged = combine([tensor.double() for tensor in tensors]).float()
    if not bool(torch.isfinite(merged).all()):
        raise DataError(f"{name} is not finite after merging, though it was in each of the inputs")
    return merged


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read as safetensors: {error}") from error


def _layout(path: Path, file: Any) -> Layout:
    layout = {}
    for name in file.keys():  # noqa: SIM118 (the file is no mapping)
        piece = file.get_slice(name)
        kind = "F32" if piece.get_dtype() in _FLOATING else piece.get_dtype()
        if kind not in _BYTES:
            raise DataError(f"{name} of {path} is of a kind that has no merge: {kind}")
        layout[name] = (kind, tuple(piece.get_shape()))
    return layout


def _check_same(first: Path, expected: Layout, path: Path, found: Layout) -> None:
    for what, names in (
        ("lacks", expected.keys() - found.keys()),
        ("has, beyond it,", found.keys() - expected.keys()),
        (
            "has in another shape or kind",
            {n for n in expected.keys() & found.keys() if expected[n] != found[n]},
        ),
    ):
        if names:
            listed = ", ".join(sorted(names)[:_NAMED_AT_MOST])
            rest = f" and {len(names) - _NAMED_AT_MOST} more" * (len(names) > _NAMED_AT_MOST)
            raise DataError(f"{path} does not go with {first}: it {what} {listed}{rest}")


def _header(layout: Layout) -> bytes:
    """The beginning of a safetensors file: its length (8 bytes, little endian), then JSON that says
    where each tensor lies, filled up with spaces to a multiple of 8."""
    entries = {}
    start = 0
    for name, (kind, shape) in layout.items():
        end = start + math.prod(shape) * _BYTES[kind]
        entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
