"""The bits of merges, written down: those of merges that are kept somewhere stay the same.

Techniques by inner products (SLERP, Karcher, Model Stock) are left out: their last bits are those
of the machine's BLAS.
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
BY_BLAS = ("slerp", "karcher", "model_stock")
DIGESTS = {
    "interpolation": "e09056d9371616c8",
    "weighted_mean": "3ecc9fa2eebce295",
    "task_arithmetic": "32b97b0fe96e4e4e",
    "task_arithmetic-[1.5, -0.5, 0.3]-0.7": "5074d18ae8e88899",
    "ties": "090a1b81eb59fa72",
    "ties-[1.5, -0.5, 0.3]-0.7": "740ddce7c99d1987",
    "dare": "6ab451fa4004b841",
    "dare-[1.5, -0.5, 0.3]-0.7": "5abd9f1854dc927c",
    "dare_ties": "4ed7527c912cf5aa",
    "dare_ties-[1.5, -0.5, 0.3]-0.7": "549e44264ae9af67",
    "della": "aeca0187bc8b0d11",
    "della-[1.5, -0.5, 0.3]-0.7": "70c3fa69dd605995",
    "della_ties": "36b0987eaf97ee12",
    "della_ties-[1.5, -0.5, 0.3]-0.7": "5e64a4f5a76d645a",
    "breadcrumbs": "de1c87b2598e9b2d",
    "breadcrumbs-[1.5, -0.5, 0.3]-0.7": "c4bfefd503ca6146",
    "breadcrumbs_ties": "fe58f07be8e7b499",
    "breadcrumbs_ties-[1.5, -0.5, 0.3]-0.7": "12f3da618cedda17",
    "magmax": "b7661686f75a2b70",
    "magmax-[1.5, -0.5, 0.3]-0.7": "c7ebb6b8b33d51a6",
    "consensus": "d500608eaea3a94e",
    "consensus-[1.5, -0.5, 0.3]-0.7": "5174b5af150ed784",
    "sce": "92f4d557ae60308c",
    "sce-[1.5, -0.5, 0.3]-0.7": "5242877e7a4b3e25",
    "random": "3c725f0aeb956b28",
    "random-[1.5, -0.5, 0.3]-0.7": "57f6dea0f9a8135c",
    "ties-0.6-model-mean": "ac7e69f7e342c7ec",
    "ties-0.6-model-sum": "fa0fa2de9f636d40",
    "ties-0.6-model-max": "df14c4e62be1d378",
    "ties-0.6-tower-mean": "ff5388f63f714533",
    "ties-0.6-tower-sum": "2353feb1f62f0ae3",
    "ties-0.6-tower-max": "573b431dd3ec8535",
    "ties-0.6-tensor-mean": "602eba6da1556645",
    "ties-0.6-tensor-sum": "d0fa7969eef46dc4",
    "ties-0.6-tensor-max": "6b3e46c4ab27c852",
    "breadcrumbs-0.3-0.2-model": "64f59780dd3babc1",
    "dare-0.0": "32b97b0fe96e4e4e",
    "sce-0.7": "b04ab1cc363b638f",
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
                moved = torch.where(theta == 0, theta, theta + change) if i else theta
                moved = torch.where(change == 1 / 64, -0.0, moved) if i else moved
                weights[name] = moved.to(KINDS[i] if kind == "mixed" else torch.float32)
            paths.append(folder / f"{kind}_{i}")
            save_file(weights, paths[-1])
    return found


def cases() -> Iterator[dict[str, Any]]:
    for name, technique in TECHNIQUES.items():
        if name not in BY_BLAS:
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
        merge(technique, models[:count], tmp_path / "out", base)
        digest.update((tmp_path / "out").read_bytes())
    assert digest.hexdigest()[:16] == DIGESTS["-".join(map(str, parameters.values()))]
