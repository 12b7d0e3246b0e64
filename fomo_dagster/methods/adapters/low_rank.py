"""Which weights a stage's adapters changed, and how, as packs of its artifact take it."""

from __future__ import annotations

from pathlib import Path

from fomo_dagster.methods.adapters.declaration import Adapters, Scaled
from fomo_dagster.store.low_rank import LowRankPart

_A, _B = ".lora_A.default.weight", ".lora_B.default.weight"  # PEFT's names
_FUSED = ("query", "key", "value")  # whose rows come in this order in OpenCLIP's attention


def parts_of(adapters: Path, weights: Path, method: Adapters) -> list[LowRankPart]:
    """What the adapters of a file add to the weights that they were merged into. Of LoRA alone:
    what the other families do is no sum, or of no low rank."""
    if not isinstance(method, Scaled) or method.name != "lora":
        return []
    from safetensors import safe_open

    with safe_open(weights, "numpy") as file:
        there = set(file.keys())
    parts = []
    with safe_open(adapters, "numpy") as file:
        names = set(file.keys())
        for name in sorted(names):
            layer, other = name.removesuffix(_A), name.removesuffix(_A) + _B
            if layer == name or other not in names:
                continue
            parent, _, last = layer.rpartition(".")
            tensor, row, fused = f"{layer}.weight", 0, f"{parent}.in_proj_weight"
            if last in _FUSED and fused in there:
                tensor, row = fused, _FUSED.index(last) * file.get_slice(other).get_shape()[0]
            if tensor in there:
                parts.append(LowRankPart(tensor, row, name, other, method.scale))
    return parts
