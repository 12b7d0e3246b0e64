"""Whether a file of weights holds numbers only, tensor by tensor."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open


def not_finite(path: Path) -> list[str]:
    """The names of the tensors in a safetensors file that hold an infinity or no number."""
    with safe_open(path, framework="pt") as weights:
        names = list(weights.keys())
        return [name for name in names if not torch.isfinite(weights.get_tensor(name)).all()]
