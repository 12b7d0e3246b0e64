import pytest
import torch
from safetensors.torch import save_file

from fomo_dagster.models.finite import not_finite

LARGE = {
    torch.float16: 65504.0,
    torch.bfloat16: 3.3e38,
    torch.float32: 3.4e38,
    torch.float64: 1.7e308,
}


@pytest.mark.parametrize("dtype", LARGE)
def test_infinities_and_what_is_no_number_are_told_from_the_largest_numbers(tmp_path, dtype):
    large = torch.tensor([LARGE[dtype], -LARGE[dtype], 0.0, 1e-7], dtype=dtype)
    weights = {"large": large, "empty": large[:0], "one": large[0].clone()}
    for name, value in (("inf", "inf"), ("minus", "-inf"), ("nan", "nan")):
        weights[name] = torch.stack([large[0], torch.tensor(float(value), dtype=dtype)])
    weights["odd"] = torch.ones(3, dtype=torch.uint8)  # what follows is not aligned
    save_file(weights, tmp_path / "weights.safetensors", metadata={"format": "pt"})
    assert set(not_finite(tmp_path / "weights.safetensors")) == {"inf", "minus", "nan"}


def test_integers_of_any_value_are_numbers(tmp_path):
    weights = {"steps": torch.tensor([-1, 2**62]), "mask": torch.full((5,), 255, dtype=torch.uint8)}
    save_file(weights, tmp_path / "weights.safetensors")
    assert not_finite(tmp_path / "weights.safetensors") == []
