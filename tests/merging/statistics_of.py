"""Statistics beside models, as a technique takes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from fomo_dagster.merging.technique import Technique


def statistics_of(technique: Technique, models: Sequence[Path], folder: Path) -> list[Path]:
    """Of no data: numbers in the place of the weights, or sums of squares of what matrices see."""
    if technique.statistics == "fisher":
        return list(models[::-1])
    if not technique.statistics:
        return []
    random, paths = torch.Generator().manual_seed(1), []
    for number, model in enumerate(models):
        moments = {}
        for name, weights in load_file(model).items():
            columns = math.prod(weights.shape[1:])
            if weights.dim() >= 2 and weights.numel():
                seen = torch.randn(max(2, columns // 2), columns, generator=random)
                moments[name] = seen.T @ seen
        paths.append(folder / f"statistics_{number}.safetensors")
        save_file(moments, paths[-1])
    return paths
