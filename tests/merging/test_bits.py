"""The bits of merges, written down: those of merges that are kept somewhere stay the same.

Techniques by inner products (SLERP, Karcher, Model Stock) and over matrices are left out: their
last bits are those of the machine's BLAS and LAPACK.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import save_file
from torch import Tensor

from fomo_dagster.merging.techniques import TECHNIQUES, AnyTechnique, merge
from tests.merging.statistics_of import statistics_of

SHAPES = {
    "visual.transformer.resblocks.0.weight": (41, 5, 3),
    "transformer.resblocks.0.weight": (1, 257),
    "transformer.resblocks.1.weight": (300, 239),
    "visual.empty": (0, 3),
    "visual.one": (1,),
    "logit_scale": (),
}
KINDS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
WEIGHTS = {"coefficients": [1.5, -0.5, 0.3], "scale": 0.7}
BY_BLAS = {
    *("slerp", "nuslerp", "multislerp", "karcher", "model_stock"),
    *(name for name, technique in TECHNIQUES.items() if technique.by_matrices),
}
DIGESTS = {
    "interpolation": "8dfd27db0c49a1c3",
    "weighted_mean": "444f09e1d4d0d183",
    "fisher": "b74c2671af1fe80a",
    "task_arithmetic": "2577e119d8a61b22",
    "task_arithmetic-[1.5, -0.5, 0.3]-0.7": "ed0aaa459ee87c29",
    "ties": "e52ad81602d85637",
    "ties-[1.5, -0.5, 0.3]-0.7": "042aaae82f6674f2",
    "dare": "5f0ec9a0f735de38",
    "dare-[1.5, -0.5, 0.3]-0.7": "ca6323b86da999e1",
    "dare_ties": "6a81fcf38e863ed1",
    "dare_ties-[1.5, -0.5, 0.3]-0.7": "8f1e1695f168015c",
    "della": "f1314187b9b47deb",
    "della-[1.5, -0.5, 0.3]-0.7": "45ca803f234f8925",
    "della_ties": "67529dd4e0f5dea8",
    "della_ties-[1.5, -0.5, 0.3]-0.7": "7d4012ac2d379b25",
    "breadcrumbs": "bebe12e034b10d67",
    "breadcrumbs-[1.5, -0.5, 0.3]-0.7": "c8011df7f54168ac",
    "breadcrumbs_ties": "7afdb14a605f31b3",
    "breadcrumbs_ties-[1.5, -0.5, 0.3]-0.7": "3f9a1a604177b2f2",
    "nearswap": "c02e5f242297a6ea",
    "magmax": "6d84550da07c105e",
    "magmax-[1.5, -0.5, 0.3]-0.7": "628f368770ba5766",
    "consensus": "8e8d8042b97b80a9",
    "consensus-[1.5, -0.5, 0.3]-0.7": "2283164064064584",
    "sce": "6fd5c6c766fbb082",
    "sce-[1.5, -0.5, 0.3]-0.7": "7b195ff18da38323",
    "random": "0cbdb6f353e20f83",
    "random-[1.5, -0.5, 0.3]-0.7": "80cbea04a5fd7a86",
    "ties-0.6-model-mean": "f19691337b6975d0",
    "ties-0.6-model-sum": "0b21d9e5d54d0784",
    "ties-0.6-model-max": "d1f085639ac3ed77",
    "ties-0.6-tower-mean": "2b0b347d13c7f92c",
    "ties-0.6-tower-sum": "4f5328dae822fc23",
    "ties-0.6-tower-max": "612ca68209d82aed",
    "ties-0.6-tensor-mean": "bc59821cf6e8432d",
    "ties-0.6-tensor-sum": "c9d672c72643a8ff",
    "ties-0.6-tensor-max": "425e6879bae9eb10",
    "breadcrumbs-0.3-0.2-model": "fd8235b3589ab1ad",
    "dare-0.0": "2577e119d8a61b22",
    "sce-0.7": "fbb77a822df1f001",
}


def numbers(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Of many magnitudes, zeros of both signs among them, the same everywhere."""
    size = int(np.prod(shape))
    bits = np.random.Philox(key=seed).random_raw(2 * size).reshape(2, size)
    mantissas = (bits[0] >> np.uint64(44)).astype(np.float64) / 2**19 - 1
    exponents = (bits[1] % np.uint64(12)).astype(np.int64) - 8
    drawn = np.ldexp(np.where(exponents < -6, np.copysign(0, mantissas), mantissas), exponents)
    return torch.from_numpy(drawn.astype(np.float32).reshape(shape))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """θ₀ and three models, whose changes are multiples of 1/64 up to 1: many are equal, or none."""
    folder = tmp_path_factory.mktemp("bits")
    found: dict[str, list[Path]] = {"float32": [], "mixed": []}
    for kind, paths in found.items():
        for i in range(4):
            weights = {}
            for place, (name, shape) in enumerate(SHAPES.items()):
                theta = numbers(place, shape)
                change = (numbers(100 * i + place, shape) * 64).round() / 64
                moved = theta
                if i:
                    moved = torch.where((theta == 0) & (change > 0), theta, theta + change)
                    moved = torch.where(change == 1 / 64, -0.0, moved)
                weights[name] = moved.to(KINDS[i] if kind == "mixed" else torch.float32)
            paths.append(folder / f"{kind}_{i}")
            save_file(weights, paths[-1])
    return found


def cases() -> Iterator[dict[str, Any]]:
    for name, technique in TECHNIQUES.items():
        if name in BY_BLAS:
            continue
        yield {"technique": name}
        if "coefficients" in technique.model_fields and technique.needs_base:
            yield {"technique": name, **WEIGHTS}
    for over in ("model", "tower", "tensor"):
        for combine in ("mean", "sum", "max"):
            yield {"technique": "ties", "density": 0.6, "over": over, "combine": combine}
    yield {"technique": "breadcrumbs", "smallest": 0.3, "largest": 0.2, "over": "model"}
    yield {"technique": "dare", "drop": 0.0}
    yield {"technique": "sce", "density": 0.7}


@pytest.mark.parametrize("parameters", list(cases()), ids=lambda p: "-".join(map(str, p.values())))
def test_the_bits_of_a_merge_are_those_written_down(
    tmp_path: Path, files: dict[str, list[Path]], parameters: dict[str, Any]
) -> None:
    technique = TypeAdapter(AnyTechnique).validate_python(parameters)
    count = 3 if technique.why_unsupported(3) is None else 2
    digest = hashlib.sha256()
    for base, *models in files.values():
        statistics = statistics_of(technique, models[:count], tmp_path)
        merge(technique, models[:count], tmp_path / "out", base, statistics=statistics)
        digest.update((tmp_path / "out").read_bytes())
    assert digest.hexdigest()[:16] == DIGESTS["-".join(map(str, parameters.values()))]
