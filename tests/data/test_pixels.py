"""The pixels without PyTorch are those of the evaluation, for any size of image."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from fomo_dagster.data.images import UnreadableImageError
from fomo_dagster.data.pixels import RESAMPLING, RESIZE_MODES, Preparation, prepared
from fomo_dagster.data.transforms import evaluate_transform

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


def noise(width, height):
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


@given(
    st.integers(1, 90), st.integers(1, 90), st.sampled_from([1, 16, 31]),
    st.sampled_from(RESIZE_MODES), st.sampled_from(sorted(RESAMPLING)),
)  # fmt: skip
@example(33, 16, 16, "shortest", "bicubic")  # halves of pixels, which are rounded to even
@example(35, 16, 16, "shortest", "bicubic")
@example(16, 16, 16, "longest", "bilinear")
@example(47, 90, 31, "longest", "bicubic")
def test_pixels_are_those_of_the_evaluation(width, height, size, mode, interpolation):
    picture = noise(width, height)
    how = Preparation(size, MEAN, STD, mode, interpolation)
    try:
        expected = evaluate_transform(size, MEAN, STD, mode, interpolation)(picture)
    except ValueError:  # torchvision's, of nothing that would remain
        with pytest.raises(UnreadableImageError, match="too narrow"):
            prepared(picture, how)
        return
    found = prepared(picture, how)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected.numpy())


def test_a_narrow_image_is_refused_before_it_becomes_a_huge_one():
    how = Preparation(224, MEAN, STD)
    with pytest.raises(UnreadableImageError, match=r"1 x 40000 .* resized to 224 x 8960000"):
        prepared(Image.new("RGB", (1, 40_000)), how, max_pixels=50_000_000)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": 0}, "size is 0"),
        ({"resize_mode": "cut"}, "resize_mode is 'cut'"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest'"),
        ({"std": (1.0, 0.0, 1.0)}, "none of std is 0"),
    ],
)
def test_what_is_no_preparation_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Preparation(**{"size": 16, "mean": MEAN, "std": STD, **wrong})
