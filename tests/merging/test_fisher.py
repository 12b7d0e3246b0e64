"""Fisher merging against the formula, number by number in float64, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.merging import checkpoints
from fomo_dagster.merging.fisher import Fisher
from fomo_dagster.merging.linear import WeightedMean
from fomo_dagster.merging.techniques import merge
from fomo_dagster.merging.weighting import as_joint

SHAPES = {"visual.proj": (7, 5), "ln_final.bias": (11,), "logit_scale": ()}
FLOOR = 1e-3


def written(folder: Path, count: int) -> tuple[list[Path], list[Path]]:
    """Models and their Fisher information, which has zeros, and less than the floor."""
    random, paths = torch.Generator().manual_seed(0), []
    for kind in ("model", "fisher"):
        for k in range(count):
            tensors = {n: torch.randn(shape, generator=random) for n, shape in SHAPES.items()}
            if kind == "fisher":
                tensors = {n: (t.abs() - 0.5).clamp(min=0) ** 4 for n, t in tensors.items()}
                tensors["ln_final.bias"][:3] = 0
            paths.append(folder / f"{kind}_{k}.safetensors")
            save_file(tensors | {"counter": torch.tensor([3, 4])}, paths[-1])
    return paths[:count], paths[count:]


def expected(models: list[Path], fishers: list[Path], coefficients: list[float], name: str):
    """One number after the other."""
    thetas = [load_file(path)[name].reshape(-1).tolist() for path in models]
    information = [load_file(path)[name].reshape(-1).tolist() for path in fishers]
    numbers = []
    for place in range(len(thetas[0])):
        above, below = [], []
        for theta, fisher, coefficient in zip(thetas, information, coefficients, strict=True):
            weight = coefficient * max(fisher[place], FLOOR)
            above.append(weight * theta[place])
            below.append(weight)
        numbers.append(math.fsum(above) / math.fsum(below))
    return torch.tensor(numbers, dtype=torch.float64).reshape(SHAPES[name])


@pytest.mark.parametrize("coefficients", [None, (0.5, 0.2, 0.3), (0.0, 1.0, 0.0)])
def test_each_number_is_the_mean_by_fisher_information(tmp_path, monkeypatch, coefficients):
    monkeypatch.setattr(checkpoints, "NUMBERS_AT_ONCE", 48)  # several pieces of a tensor
    monkeypatch.setattr(checkpoints, "NUMBERS_OF_ONE", 4)
    models, fishers = written(tmp_path, 3)
    technique = Fisher(coefficients=coefficients, floor=FLOOR)
    merge(technique, models, tmp_path / "out", statistics=fishers)
    found = load_file(tmp_path / "out")
    assert found.pop("counter").tolist() == [3, 4]
    assert found.keys() == SHAPES.keys()
    for name, values in found.items():
        wanted = expected(models, fishers, list(coefficients or [1 / 3] * 3), name)
        torch.testing.assert_close(values.double(), wanted, rtol=1e-6, atol=1e-7)
    of_all = [load_file(path)["ln_final.bias"][:3] for path in models]
    if coefficients is None:  # nothing is known of these: the plain mean
        torch.testing.assert_close(found["ln_final.bias"][:3], torch.stack(of_all).mean(0))


def test_a_joint_merge_weighs_the_models_by_their_age():
    assert as_joint(Fisher(), 3, "linear").coefficients == pytest.approx((1 / 6, 2 / 6, 3 / 6))
    with pytest.raises(ValueError, match="coefficients of fisher are for a fixed number"):
        as_joint(Fisher(coefficients=(0.5, 0.5)), 2)


def test_models_without_statistics_are_refused_with_the_way_out(tmp_path):
    models, fishers = written(tmp_path, 2)
    with pytest.raises(InputError, match=r"there are 1 for 2 models.*combination: offline_merge"):
        merge(Fisher(), models, tmp_path / "out", statistics=fishers[:1])
    with pytest.raises(InputError, match="weighted_mean takes no statistics, and 2 are given"):
        merge(WeightedMean(), models, tmp_path / "out", statistics=fishers)
    of_three = Fisher(coefficients=(0.5, 0.2, 0.3))
    with pytest.raises(InputError, match="fisher cannot merge 2 models: it has 3 coefficients"):
        merge(of_three, models, tmp_path / "out", statistics=fishers)
    save_file({"visual.proj": torch.zeros(7, 5)}, fishers[1])
    with pytest.raises(DataError, match=r"fisher_1.* lacks counter, ln_final.bias, logit_scale"):
        merge(Fisher(), models, tmp_path / "out", statistics=fishers)
    assert not (tmp_path / "out").exists()


def test_the_command_line_takes_statistics_of_each_file(tmp_path):
    models, fishers = written(tmp_path, 2)
    files = ["merge", str(tmp_path / "out.safetensors"), *map(str, models)]
    given = [*files, "--technique", "fisher", "--set", f"floor={FLOOR}"]
    refused = CliRunner().invoke(app, given)
    assert refused.exit_code != 0
    for path in fishers:
        given += ["--statistics", str(path)]
    merged = CliRunner().invoke(app, given)
    assert merged.exit_code == 0, merged.output
    found = load_file(tmp_path / "out.safetensors")["visual.proj"].double()
    wanted = expected(models, fishers, [0.5, 0.5], "visual.proj")
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)
