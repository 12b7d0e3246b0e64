from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fomo_dagster.errors import DataError, InputError
from fomo_dagster.merging import checkpoints, exact_quantiles
from fomo_dagster.merging.linear import WeightedMean
from fomo_dagster.merging.techniques import merge
from fomo_dagster.merging.ties import Ties

Weights = dict[str, Tensor]


def interpolate(inputs: list[Path], coefficients: list[float], output: Path) -> None:
    merge(WeightedMean(coefficients=tuple(coefficients)), inputs, output)


def checkpoint(seed: int) -> Weights:
    random = torch.Generator().manual_seed(seed)
    return {
        "visual.proj": torch.randn(5, 3, generator=random),
        "logit_scale": torch.randn((), generator=random),
        "a.empty": torch.zeros(0, 4),
        "norm.running_mean": torch.randn(3, generator=random),
        "norm.num_batches_tracked": torch.tensor(7),
        "größe": torch.randn(2, generator=random),
    }


def written(folder: Path, *checkpoints: Weights) -> list[Path]:
    paths = [folder / f"input_{i}.safetensors" for i in range(len(checkpoints))]
    for path, weights in zip(paths, checkpoints, strict=True):
        save_file(weights, path)
    return paths


@settings(max_examples=25)
@given(shares=st.lists(st.floats(-3, 3), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_every_tensor_is_the_weighted_sum_of_the_inputs(
    tmp_path_factory: pytest.TempPathFactory, shares: list[float], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    coefficients = [*shares, 1 - sum(shares)]
    inputs = [checkpoint(seed + i) for i in range(len(coefficients))]
    interpolate(written(folder, *inputs), coefficients, folder / "out.safetensors")
    merged = load_file(folder / "out.safetensors")
    assert merged.keys() == inputs[0].keys()
    for name in merged:
        if name == "norm.num_batches_tracked":
            assert merged[name] == 7
            continue
        terms = [
            np.float64(c) * weights[name].numpy().astype(np.float64)
            for c, weights in zip(coefficients, inputs, strict=True)
        ]
        expected = np.sum(np.stack(terms), axis=0)
        assert merged[name].dtype == torch.float32
        np.testing.assert_allclose(merged[name].numpy(), expected, rtol=1e-6, atol=1e-7)


def test_one_half_is_rounded_once_from_float64(tmp_path: Path) -> None:
    left, right = checkpoint(1), checkpoint(2)
    paths = written(tmp_path, left, right)
    interpolate(paths, [0.3, 0.7], tmp_path / "out.safetensors")
    expected = (0.3 * left["visual.proj"].double() + 0.7 * right["visual.proj"].double()).float()
    assert torch.equal(load_file(tmp_path / "out.safetensors")["visual.proj"], expected)


@pytest.mark.parametrize("coefficients", [[1.0, 0.0], [0.0, 1.0]])
def test_a_coefficient_of_one_gives_the_input_back_byte_for_byte(
    tmp_path: Path, coefficients: list[float]
) -> None:
    paths = written(tmp_path, checkpoint(1), checkpoint(2))
    interpolate(paths, coefficients, tmp_path / "out.safetensors")
    chosen = paths[coefficients.index(1.0)]
    assert (tmp_path / "out.safetensors").read_bytes() == chosen.read_bytes()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_equal_inputs_give_themselves_byte_for_byte(tmp_path: Path, share: float) -> None:
    paths = written(tmp_path, checkpoint(1), checkpoint(1))
    interpolate(paths, [share, 1 - share], tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == paths[0].read_bytes()


def test_the_order_of_the_inputs_decides_whose_coefficient_is_whose(tmp_path: Path) -> None:
    paths = written(tmp_path, checkpoint(1), checkpoint(2))
    interpolate(paths, [0.9, 0.1], tmp_path / "a.safetensors")
    interpolate(paths[::-1], [0.1, 0.9], tmp_path / "b.safetensors")
    interpolate(paths, [0.1, 0.9], tmp_path / "c.safetensors")
    a, b, c = (load_file(tmp_path / f"{x}.safetensors")["visual.proj"] for x in "abc")
    assert torch.allclose(a, b)
    assert not torch.allclose(a, c)


def test_half_precision_inputs_are_merged_in_full_precision(tmp_path: Path) -> None:
    low = {"w": torch.tensor([1.0, 2.0], dtype=torch.bfloat16)}
    high = {"w": torch.tensor([1.0009765625, 0.1])}
    interpolate(written(tmp_path, low, high), [0.5, 0.5], tmp_path / "out.safetensors")
    merged = load_file(tmp_path / "out.safetensors")["w"]
    assert torch.equal(merged, torch.tensor([1.00048828125, 1.05]))


def test_tensors_that_do_not_match_are_named(tmp_path: Path) -> None:
    lacking = checkpoint(2)
    del lacking["visual.proj"]
    mis_shaped = checkpoint(2) | {"visual.proj": torch.zeros(3, 5)}
    integer = checkpoint(2) | {"visual.proj": torch.zeros(5, 3, dtype=torch.int32)}
    for other, message in (
        (lacking, "lacks visual.proj"),
        (checkpoint(2) | {"surplus": torch.zeros(1)}, "also has surplus"),
        (mis_shaped, "has another shape or kind of visual.proj"),
        (integer, "has another shape or kind of visual.proj"),
    ):
        paths = written(tmp_path, checkpoint(1), other)
        with pytest.raises(DataError, match=rf"input_1\.safetensors .*{re.escape(message)}"):
            interpolate(paths, [0.5, 0.5], tmp_path / "out.safetensors")


def test_integers_that_differ_have_no_merge(tmp_path: Path) -> None:
    other = checkpoint(2) | {"norm.num_batches_tracked": torch.tensor(8)}
    paths = written(tmp_path, checkpoint(1), other)
    with pytest.raises(DataError, match="num_batches_tracked holds integers that differ"):
        interpolate(paths, [0.5, 0.5], tmp_path / "out.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    other = checkpoint(2)
    other["visual.proj"][2, 1] = value
    paths = written(tmp_path, checkpoint(1), other)
    with pytest.raises(DataError, match=r"visual\.proj of .*input_1\.safetensors is not finite"):
        interpolate(paths, [1.0, 0.0], tmp_path / "out.safetensors")


def test_a_sum_that_overflows_is_named(tmp_path: Path) -> None:
    paths = written(tmp_path, {"w": torch.tensor([3e38])}, {"w": torch.tensor([-3e38])})
    with pytest.raises(DataError, match="w is not finite after merging"):
        interpolate(paths, [2.0, -1.0], tmp_path / "out.safetensors")


@pytest.mark.parametrize("coefficients", [[1.0], [0.2, 0.3, 0.5]])
def test_there_is_a_coefficient_for_each_model(tmp_path: Path, coefficients: list[float]) -> None:
    paths = written(tmp_path, checkpoint(1), checkpoint(2))
    with pytest.raises(InputError, match=r"weighted_mean cannot merge 2 models.*one for each"):
        interpolate(paths, coefficients, tmp_path / "out.safetensors")


@pytest.mark.parametrize("coefficients", [[0.5, 0.6], []])
def test_coefficients_of_a_mean_add_up_to_one(coefficients: list[float]) -> None:
    with pytest.raises(ValidationError, match="add up to 1"):
        WeightedMean(coefficients=tuple(coefficients))


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    for name in ("broken.safetensors", "nowhere.safetensors"):
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            interpolate([tmp_path / name], [1.0], tmp_path / "out.safetensors")


@pytest.mark.slow
def test_merging_never_holds_a_checkpoint_nor_a_tensor_of_every_model(tmp_path: Path) -> None:
    """Four models of 32 MiB, half of it one tensor, through passes of selection and one of writing,
    with two threads; what is allocated beyond the beginning is less than that tensor of all."""
    weights = {f"layer_{i:02}": torch.full((2**18,), float(i)) for i in range(16)}
    weights["embedding"] = torch.arange(2.0**22)
    written(tmp_path, weights, weights)
    script = """
import sys
from pathlib import Path
import torch
from fomo_dagster.merging import checkpoints, techniques

torch.set_num_threads(2)
folder, allocated = Path(sys.argv[1]), []

def watched(read):
    def reading(*arguments):
        status = Path("/proc/self/status").read_text().splitlines()
        allocated.extend(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
        return read(*arguments)
    return reading

for name in ("_read", "_magnitudes"):
    setattr(checkpoints.Checkpoints, name, watched(getattr(checkpoints.Checkpoints, name)))
base, model = folder / "input_0.safetensors", folder / "input_1.safetensors"
out = folder / "out.safetensors"
techniques.merge(techniques.Ties(), [model] * 4, out, base)
assert len(allocated) > 100
print(max(allocated) - allocated[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 64 * 1024  # KiB


def test_pieces_are_read_of_a_bounded_size_whatever_the_number_of_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "NUMBERS_AT_ONCE", 64)
    monkeypatch.setattr(checkpoints, "NUMBERS_OF_ONE", 4)
    monkeypatch.setattr(exact_quantiles, "SAMPLED", 8)
    weights = {"a": torch.randn(7, 43), "b": torch.randn(5)}
    paths = written(tmp_path, *[weights | {"a": torch.randn(7, 43)} for _ in range(9)])
    read: dict[str, list[tuple[int, int]]] = {"_read": [], "_magnitudes": []}

    def watched(kind, original):
        def reading(self, name, tensors, start, stop, *rest):
            if name == "a":
                read[kind].append((len(tensors), stop - start))
            return original(self, name, tensors, start, stop, *rest)

        return reading

    for kind in read:
        patched = watched(kind, getattr(checkpoints.Checkpoints, kind))
        monkeypatch.setattr(checkpoints.Checkpoints, kind, patched)
    merge(Ties(), paths[1:], tmp_path / "out.safetensors", paths[0])
    assert all(models * width <= 64 for kind in read for models, width in read[kind])
    samples = 2 * 8 * len(range(0, 301, 41))  # each model and θ₀; 306 // 8 shares factors with rows
    assert sum(m * w for m, w in read["_read"]) == samples + 301 * 9
    passes = sum(m * w for m, w in read["_magnitudes"]) / (301 * 2)
    assert passes in range(8, 3 * 8 + 1)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_what_is_added_up_over_pieces_is_added_up_over_the_same_ones(
    tmp_path: Path, threads: int
) -> None:
    """With other pieces, the last digits of weights that are kept somewhere would change."""
    before = torch.get_num_threads()
    paths = written(tmp_path, {"w": torch.arange(400_001.0)}, {"w": torch.ones(400_001)})
    torch.set_num_threads(threads)
    try:
        with checkpoints.Checkpoints(paths) as files:
            found = list(
                files.over_pieces("w", lambda p: (p.start, p.models.shape, p.models[0, 0]))
            )
    finally:
        torch.set_num_threads(before)
    starts = range(0, 400_001, 2**16)
    assert found == [(start, (2, min(2**16, 400_001 - start)), start) for start in starts]
