"""RegMean against its formula in float64, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fomo_dagster.errors import DataError, InputError
from fomo_dagster.merging.regmean import RegMean
from fomo_dagster.merging.techniques import merge

LAYER, OTHER, UNSEEN = "visual.mlp.c_fc.weight", "transformer.attn.in_proj_weight", "visual.proj"
SHAPES = {LAYER: (7, 5), OTHER: (12, 4), UNSEEN: (5, 6), "ln_final.bias": (11,), "logit_scale": ()}


def written(folder: Path, count: int) -> tuple[list[Path], list[Path]]:
    random, models, statistics = torch.Generator().manual_seed(0), [], []
    for k in range(count):
        tensors = {n: torch.randn(shape, generator=random) for n, shape in SHAPES.items()}
        models.append(folder / f"model_{k}.safetensors")
        save_file(tensors | {"counter": torch.tensor([3, 4])}, models[-1])
        moments = {}
        for name in (LAYER, OTHER):
            seen = torch.randn(30, SHAPES[name][1], generator=random)
            seen[:, 1] = seen[:, 0] + 0.1 * seen[:, 1]
            if name == OTHER:
                seen[:, -1] = 0  # an input that no model had
            moments[name] = seen.T @ seen / 30
        statistics.append(folder / f"statistics_{k}.safetensors")
        save_file(moments, statistics[-1])
    return models, statistics


@pytest.mark.parametrize("off_diagonal", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("coefficients", [None, (0.5, 0.2, 0.3), (0.0, 1.0, 0.0)])
def test_layers_solve_the_regression_and_others_are_averaged(tmp_path, off_diagonal, coefficients):
    models, statistics = written(tmp_path, 3)
    technique = RegMean(coefficients=coefficients, off_diagonal=off_diagonal)
    merge(technique, models, tmp_path / "out", statistics=statistics)
    found = load_file(tmp_path / "out")
    assert found.pop("counter").tolist() == [3, 4]
    shares = coefficients or (1 / 3,) * 3
    weights = [{n: t.double().numpy() for n, t in load_file(path).items()} for path in models]
    moments = [{n: t.double().numpy() for n, t in load_file(path).items()} for path in statistics]
    for name, shape in SHAPES.items():
        wanted = sum(c * w[name] for c, w in zip(shares, weights, strict=True))
        if name in (LAYER, OTHER):
            seen = slice(0, -1 if name == OTHER else None)
            above = np.zeros((shape[1], shape[0]))
            below = np.zeros((shape[1], shape[1]))
            for c, w, m in zip(shares, weights, moments, strict=True):
                shrunk = off_diagonal * m[name] + (1 - off_diagonal) * np.diag(np.diag(m[name]))
                above += c * shrunk @ w[name].T
                below += c * shrunk
            wanted = np.array(wanted)
            wanted[:, seen] = (np.linalg.inv(below[seen, seen]) @ above[seen]).T
        np.testing.assert_allclose(found[name].double().numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_a_layer_that_no_model_fed_is_averaged(tmp_path):
    models, statistics = written(tmp_path, 2)
    for path in statistics:
        save_file({LAYER: torch.zeros(5, 5)}, path)
    merge(RegMean(), models, tmp_path / "out", statistics=statistics)
    mean = sum(load_file(path)[LAYER] for path in models) / 2
    torch.testing.assert_close(load_file(tmp_path / "out")[LAYER], mean)


def test_statistics_that_do_not_go_with_the_weights_are_named(tmp_path):
    models, statistics = written(tmp_path, 2)
    with pytest.raises(InputError, match=r"regmean needs statistics .* there are 1 for 2 models"):
        merge(RegMean(), models, tmp_path / "out", statistics=statistics[:1])

    def refused(tensors: dict[str, torch.Tensor], match: str) -> None:
        save_file(tensors, statistics[1])
        with pytest.raises(DataError, match=match):
            merge(RegMean(), models, tmp_path / "out", statistics=statistics)

    good = load_file(statistics[1])
    refused({LAYER: good[LAYER]}, f"statistics_1.* only one of them has {OTHER}")
    refused(good | {LAYER: torch.eye(4)}, r"c_fc.weight of shape \[4, 4\], which is not of the in")
    refused(good | {OTHER: torch.eye(4) * torch.nan}, "in_proj_weight of .*_1.* is not finite")
    refused(good | {LAYER: -100 * torch.eye(5)}, "c_fc.weight: .* no sums of squares")
