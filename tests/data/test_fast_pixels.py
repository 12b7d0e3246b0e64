"""Images decoded by libjpeg-turbo and resized by PyTorch, against Pillow and against themselves."""

import hashlib
import io
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from fomo_dagster.data import decoders, resizing
from fomo_dagster.data.decoders import DECODE, decoded_array
from fomo_dagster.data.decoding import DEFAULT, Decoding
from fomo_dagster.data.images import UnreadableImageError, decoded
from fomo_dagster.data.pixel_rules import Pixels
from fomo_dagster.data.pixels import RESIZE_MODES
from fomo_dagster.data.resizing import INTERPOLATIONS, resized, resized_by_definition
from fomo_dagster.data.transforms import augment, evaluate_transform

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


def photograph(width, height, mode="RGB"):
    photo = Image.fromarray(data.astronaut())
    return photo.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image, form="JPEG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


SIZES = [(1, 1), (1, 90), (90, 1), (7, 5), (17, 33), (200, 151), (341, 256)]
JPEGS = {
    f"{width}x{height} {mode} {subsampling} {'progressive' if progressive else 'sequential'}":
    encoded(photograph(width, height, mode), quality=quality, progressive=progressive, **chroma)
    for width, height in SIZES
    for mode, subsampling, chroma in (
        ("RGB", "4:2:0", {"subsampling": 2}), ("RGB", "4:2:2", {"subsampling": 1}),
        ("RGB", "4:4:4", {"subsampling": 0}), ("L", "", {}), ("RGB", "stored", {"keep_rgb": True}),
    )
    for progressive, quality in ((False, 75), (True, 90))
}  # fmt: skip


@pytest.mark.parametrize("name", JPEGS)
def test_plain_jpeg_has_pillows_pixels_without_pillow(name, monkeypatch):
    expected = np.asarray(decoded(JPEGS[name]))
    monkeypatch.delattr(decoders, "decoded")
    np.testing.assert_array_equal(decoded_array(JPEGS[name]), expected)


def _turned():
    exif = Image.Exif()
    exif[274] = 6
    return encoded(photograph(20, 10), exif=exif)


LEFT_TO_PILLOW = {
    "CMYK": (encoded(photograph(40, 30, "CMYK")), DEFAULT),
    "PNG": (encoded(photograph(40, 30), "PNG"), DEFAULT),
    "transparent": (encoded(photograph(40, 30, "RGBA"), "PNG"), Decoding("#000000")),
    "upright": (_turned(), Decoding(upright=True)),
}


@pytest.mark.parametrize("name", LEFT_TO_PILLOW)
def test_what_the_fast_decoder_would_do_otherwise_is_decoded_by_pillow(name):
    image, decoding = LEFT_TO_PILLOW[name]
    found = decoded_array(image, decoding)
    np.testing.assert_array_equal(found, np.asarray(decoded(image, decoding)))
    assert found.flags.writeable  # or PyTorch would warn


@pytest.mark.parametrize("damage", ["cut", "no end", "empty", "text", "huge"])
def test_what_cannot_be_decoded_has_pillows_error(damage):
    whole = encoded(photograph(64, 48))
    broken = {
        "cut": whole[: len(whole) // 2], "no end": whole[:-40], "empty": b"", "text": b"hello",
        "huge": whole,
    }[damage]  # fmt: skip
    most = 1000 if damage == "huge" else 10**6
    with pytest.raises(UnreadableImageError) as expected:
        decoded(broken, DEFAULT, most)
    with pytest.raises(UnreadableImageError) as found:
        decoded_array(broken, DEFAULT, most)
    assert str(found.value) == str(expected.value)


def test_a_damaged_jpeg_has_the_pixels_or_the_error_that_it_has_with_pillow():
    whole, drawn = encoded(photograph(64, 48)), np.random.default_rng(0)
    decodable = 0
    for _ in range(60):
        broken = bytearray(whole)
        broken[drawn.integers(len(whole))] = drawn.integers(256)
        try:
            expected = np.asarray(decoded(bytes(broken)))
        except UnreadableImageError:
            with pytest.raises(UnreadableImageError):
                decoded_array(bytes(broken))
            continue
        np.testing.assert_array_equal(decoded_array(bytes(broken)), expected)
        decodable += 1
    assert 20 < decodable < 200


IMAGES = {
    "photograph": photograph(500, 375), "small": photograph(341, 256),
    "reduced": photograph(1400, 900), "enlarged": photograph(90, 61),
    "grey": photograph(300, 200, "L"), "CMYK": photograph(320, 240, "CMYK"),
    "one pixel": photograph(1, 1), "narrow": photograph(1, 40), "low": photograph(40, 1),
    "text": Image.fromarray(data.page()),
}  # fmt: skip


def levels_apart(found, expected):
    """How far they are apart, at most one level of 255 on 99.9% of the values."""
    apart = (found.int() - expected.int()).abs()
    assert (apart <= 1).double().mean() >= 0.999
    return apart.double()


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("name", IMAGES)
def test_training_sees_pillows_pixels_to_a_level(name, interpolation):
    data_of = encoded(IMAGES[name], progressive=True)
    for seed in range(3):
        by_pillow, by_torch = (
            augment(
                DECODE[pixels](data_of, DEFAULT), np.random.Generator(np.random.Philox(key=seed)),
                size=224, crop_scale=(0.3, 1.0), interpolation=interpolation, pixels=pixels,
            )
            for pixels in Pixels
        )  # fmt: skip
        assert by_torch.dtype == torch.uint8
        assert by_torch.shape == (3, 224, 224)
        levels_apart(by_torch, by_pillow)


@pytest.mark.parametrize("mode", RESIZE_MODES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("name", sorted(set(IMAGES) - {"narrow", "low"}))
def test_evaluation_sees_pillows_pixels_to_a_level(name, interpolation, mode):
    data_of = encoded(IMAGES[name])
    by_pillow, by_torch = (
        evaluate_transform(96, MEAN, STD, mode, interpolation, pixels).fitted(
            DECODE[pixels](data_of, DEFAULT)
        )
        for pixels in Pixels
    )
    assert by_torch.shape == (3, 96, 96)
    apart = levels_apart(by_torch, by_pillow)
    assert apart.max() <= 2
    assert apart.mean() < 0.02


def test_a_picture_too_narrow_to_be_resized_is_refused_and_not_made_huge():
    transform = evaluate_transform(224, MEAN, STD, pixels=Pixels.TORCH)
    with pytest.raises(UnreadableImageError, match=r"1 x 40000 .* resized to 224 x 8960000"):
        transform(np.zeros((40_000, 1, 3), np.uint8))


@settings(max_examples=60)
@given(
    st.integers(1, 700), st.integers(1, 90), st.integers(1, 230), st.integers(1, 90),
    st.sampled_from(INTERPOLATIONS), st.integers(0, 2**32),
)  # fmt: skip
def test_pytorch_resizes_as_it_is_defined(height, width, to_height, to_width, interpolation, seed):
    drawn = np.random.default_rng(seed)
    pixels = drawn.choice(np.array([0, 1, 128, 254, 255], np.uint8), (height + 2, width + 2, 3))
    pixels = pixels[1:-1, 1:-1]
    found = resized(pixels, (to_height, to_width), interpolation)
    expected = resized_by_definition(pixels, (to_height, to_width), interpolation)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_a_pytorch_that_resizes_otherwise_is_left_aside(monkeypatch, caplog):
    pixels = np.array(photograph(50, 40))
    expected = resized(pixels, (20, 30))
    right = resizing._by_torch

    def by_another_torch(*asked):
        found = right(*asked)
        found[0, 0, 0] += 1
        return found

    monkeypatch.setattr(resizing, "_by_torch", by_another_torch)
    resizing._is_as_defined.cache_clear()
    try:
        assert torch.equal(resized(pixels, (20, 30)), expected)
        assert "other ones on this machine" in caplog.text
    finally:
        resizing._is_as_defined.cache_clear()


PRINT = """
import hashlib, torch
import numpy as np
from fomo_dagster.data.resizing import resized
drawn, told = np.random.default_rng(0), hashlib.sha256()
for height in range(1, 400, 29):
    pixels = drawn.integers(0, 256, (height, 401 - height, 3), dtype=np.uint8)
    for interpolation in ("bicubic", "bilinear"):
        told.update(resized(pixels, (64, 50), interpolation).contiguous().numpy().tobytes())
print(torch.backends.cpu.get_cpu_capability(), told.hexdigest())
"""


@pytest.mark.slow
def test_all_instruction_sets_and_numbers_of_threads_give_the_same_pixels():
    told = {}
    for capability, threads in (("default", "1"), ("avx2", "3"), ("avx512", "1")):
        asked = {"ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": threads}
        printed = subprocess.run(
            [sys.executable, "-c", PRINT], capture_output=True, text=True, check=True,
            env={**os.environ, **asked},
        ).stdout.split()  # fmt: skip
        told[capability, threads] = printed[-1]
    assert len(set(told.values())) == 1, told


def test_threads_that_share_decoder_and_resizer_change_no_pixel():
    images = [JPEGS[name] for name in JPEGS if name.startswith(("200", "341"))]

    def digests():
        return [
            hashlib.sha256(resized(decoded_array(one), (96, 96)).numpy().tobytes()).hexdigest()
            for one in images
        ]

    expected, found = digests(), []
    threads = [threading.Thread(target=lambda: found.append(digests())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4
