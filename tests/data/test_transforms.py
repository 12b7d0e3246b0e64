"""Transforms held against OpenCLIP, Pillow with numpy in float64, and torchvision's own sampler."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import RandomResizedCrop, functional

from fomo_dagster.data.images import to_rgb
from fomo_dagster.data.transforms import (
    CROP_RATIO,
    augment,
    evaluate_transform,
    normalise,
    random_crop,
)
from fomo_dagster.errors import InputError

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(values)


def normalised(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image, dtype=np.float64) / 255
    return ((pixels - MEAN) / STD).transpose(2, 0, 1)


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("width", "height"), [(37, 53), (90, 41), (24, 24), (9, 300)])
def test_evaluation_sees_the_values_of_openclip(
    mode: str, resize_mode: str, interpolation: str, width: int, height: int
) -> None:
    image = noise(width, height, mode)
    reference = open_clip.image_transform(
        24, is_train=False, mean=MEAN, std=STD, resize_mode=resize_mode,
        interpolation=interpolation,
    )  # fmt: skip
    mine = evaluate_transform(24, MEAN, STD, resize_mode, interpolation)(image)
    assert mine.dtype == torch.float32
    assert torch.equal(mine, reference(image))


def test_evaluation_resizes_the_short_side_and_crops_the_centre() -> None:
    image = noise(80, 40)
    expected = normalised(image.resize((48, 24), Image.Resampling.BICUBIC).crop((12, 0, 36, 24)))
    mine = evaluate_transform(24, MEAN, STD)(image)
    np.testing.assert_allclose(mine.numpy(), expected, atol=1e-6)


def test_a_palette_image_is_resized_in_colour_and_not_by_nearest_neighbour() -> None:
    palette = noise(61, 47).quantize(16)
    transform = evaluate_transform(24, MEAN, STD)
    assert torch.equal(transform(palette), transform(palette.convert("RGB")))


def test_an_unknown_resize_mode_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"'shortes'.*'shortest'"):
        evaluate_transform(24, MEAN, STD, "shortes")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F"]
)
def test_every_mode_becomes_rgb_of_the_same_size(mode: str) -> None:
    if mode == "LAB":
        image = Image.new("LAB", (5, 3))
    else:
        image = noise(5, 3).convert("L" if mode == "LA" else "RGB").convert(mode)
    if mode == "P":
        image.info["transparency"] = bytes(range(16))
    rgb = to_rgb(image)
    assert (rgb.mode, rgb.size) == ("RGB", (5, 3))


def test_a_transparent_palette_shows_white() -> None:
    palette = noise(9, 7).quantize(8)
    opaque = np.asarray(palette.convert("RGB"))
    palette.info["transparency"] = bytes([255, 0] * 4)
    expected = np.where((np.asarray(palette) % 2 == 0)[..., None], opaque, 255)
    assert (np.asarray(to_rgb(palette)) == expected).all()


@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    seed=st.integers(0, 2**32),
    low=st.floats(0.01, 1),
    high=st.floats(0.01, 1),
)
def test_a_crop_lies_inside_its_image(
    width: int, height: int, seed: int, low: float, high: float
) -> None:
    scale = (min(low, high), max(low, high))
    left, top, crop_width, crop_height = random_crop(width, height, rng(seed), scale)
    assert 0 <= left <= left + crop_width <= width
    assert 0 <= top <= top + crop_height <= height
    assert crop_width > 0
    assert crop_height > 0


def test_the_crop_is_distributed_as_in_torchvision() -> None:
    width, height, scale, count = 400, 300, (0.3, 1.0), 4000

    def quantities(crops: np.ndarray) -> dict[str, np.ndarray]:
        left, top, crop_width, crop_height = crops.T
        return {
            "left": left / np.maximum(width - crop_width, 1),
            "top": top / np.maximum(height - crop_height, 1),
            "area": crop_width * crop_height,
            "ratio": crop_width / crop_height,
        }

    generator = rng(1)
    mine = np.array([random_crop(width, height, generator, scale) for _ in range(count)])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        image = Image.new("RGB", (width, height))
        drawn = [
            RandomResizedCrop.get_params(image, list(scale), list(CROP_RATIO)) for _ in range(count)
        ]
    theirs = np.array(drawn)[:, [1, 0, 3, 2]]  # (top, left, height, width) there
    of_mine, of_theirs = quantities(mine), quantities(theirs)
    for name in of_mine:
        one, other = np.sort(of_mine[name]), np.sort(of_theirs[name])
        points = np.concatenate([one, other])
        distance = np.abs(
            np.searchsorted(one, points, "right") - np.searchsorted(other, points, "right")
        ).max()
        # Kolmogorov-Smirnov: 1.95·√(2/n) is exceeded by equal distributions once in a thousand.
        assert distance / count < 1.95 * (2 / count) ** 0.5, name


def test_a_crop_reaches_every_place_equally_often() -> None:
    generator = rng(0)  # 4 of 9 pixels, of any allowed ratio, round to 2 × 2
    crops = Counter(random_crop(3, 3, generator, (4 / 9, 4 / 9)) for _ in range(800))
    assert set(crops) == {(left, top, 2, 2) for left in (0, 1) for top in (0, 1)}
    assert all(count == pytest.approx(200, abs=50) for count in crops.values())


@pytest.mark.parametrize(("width", "height"), [(400, 20), (20, 400)])
def test_where_no_crop_fits_it_is_the_largest_centred_one_as_in_torchvision(
    width: int, height: int
) -> None:
    top, left, crop_height, crop_width = RandomResizedCrop.get_params(
        Image.new("RGB", (width, height)), [1.0, 1.0], list(CROP_RATIO)
    )
    assert random_crop(width, height, rng(0), (1.0, 1.0)) == (left, top, crop_width, crop_height)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_augmentation_is_the_drawn_crop_resized_and_normalised(interpolation: str) -> None:
    image = noise(70, 50)
    left, top, width, height = random_crop(70, 50, rng(5), (0.3, 0.6))
    crop = image.crop((left, top, left + width, top + height))
    expected = normalised(crop.resize((16, 16), Image.Resampling[interpolation.upper()]))
    pixels = augment(image, rng(5), size=16, crop_scale=(0.3, 0.6), interpolation=interpolation)
    assert pixels.dtype == torch.uint8
    mine = normalise(pixels, MEAN, STD)
    assert mine.dtype == torch.float32
    np.testing.assert_allclose(mine.numpy(), expected, atol=1e-6)


def test_normalising_pixels_gives_torchvisions_numbers_bit_for_bit() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(2, 3, 1).reshape(2, 3, 16, 16)
    images = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in pixels]
    expected = [functional.normalize(functional.to_tensor(image), MEAN, STD) for image in images]
    assert torch.equal(normalise(pixels, MEAN, STD), torch.stack(expected))


def test_augmentation_reads_and_moves_no_global_generator() -> None:
    def once() -> torch.Tensor:
        return augment(noise(70, 50), rng(5), size=16, crop_scale=(0.3, 0.6))

    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.random.get_rng_state(), str(np.random.get_state())
    first = once()
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert str(np.random.get_state()) == before[1]
    torch.manual_seed(2)
    assert torch.equal(once(), first)


def test_the_evaluation_transform_survives_pickling() -> None:
    transform = evaluate_transform(24, MEAN, STD)
    image = noise(40, 30)
    assert torch.equal(pickle.loads(pickle.dumps(transform))(image), transform(image))
