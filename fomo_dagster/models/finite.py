"""Whether a file of weights holds numbers only, tensor by tensor.

Without PyTorch: the process of a run asks it of every stage, and would import it for this alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

# A float is an infinity or no number where all bits of its exponent are set.
_EXPONENTS = {
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
    "F32": ("<u4", 0x7F800000),
    "F64": ("<u8", 0x7FF0000000000000),
}


def not_finite(path: Path) -> list[str]:
    """The names of the tensors in a safetensors file that hold an infinity or no number, in the
    file's order. Tensors of integers and of floats below 16 bits hold numbers."""
    content = np.memmap(path, np.uint8, mode="r")
    start = 8 + int(content[:8].view("<u8")[0])
    header = json.loads(content[8:start].tobytes())
    header.pop("__metadata__", None)
    return [
        name
        for name, tensor in header.items()
        if tensor["dtype"] in _EXPONENTS and _is_bad(content[start:], tensor)
    ]


def _is_bad(content: np.ndarray, tensor: dict[str, Any]) -> bool:
    dtype, exponent = _EXPONENTS[tensor["dtype"]]
    begin, end = tensor["data_offsets"]
    values = content[begin:end].view(dtype)
    return bool(((values & np.array(exponent, dtype)) == exponent).any())
