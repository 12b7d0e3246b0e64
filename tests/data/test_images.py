"""Images made safe to store: every mode goes through, and what is broken is told."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode, functional

from fomo_dagster.data.images import UnreadableImageError, checked, to_rgb

MAX_PIXELS = 10**6


def pixels(height: int = 60, width: int = 90) -> np.ndarray:
    """A smooth picture, so that resampling and JPEG change it little."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / width, y * 255 / height, 255 - x * 255 / width], 2).astype(np.uint8)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def picture() -> Image.Image:
    return Image.fromarray(pixels())


def animated() -> bytes:
    frames = [Image.new("P", (90, 60), i) for i in range(1, 4)]
    return encoded(picture().quantize(), "GIF", save_all=True, append_images=frames)


def sixteen_bit() -> Image.Image:
    return Image.fromarray(pixels()[:, :, 0].astype(np.uint16) * 257)


READABLE = {
    "rgb jpeg": (encoded(picture(), "JPEG"), "jpg", "jpg"),
    "jpeg of two pictures": (
        encoded(picture(), "MPO", save_all=True, append_images=[picture()]), "jpg", "jpg"
    ),
    "cmyk jpeg": (encoded(picture().convert("CMYK"), "JPEG"), "jpg", "jpg"),
    "grey jpeg": (encoded(picture().convert("L"), "JPEG"), "jpg", "jpg"),
    "png": (encoded(picture(), "PNG"), "png", "png"),
    "palette png": (encoded(picture().quantize(), "PNG"), "png", "png"),
    "palette png with alpha": (
        encoded(picture().quantize(), "PNG", transparency=bytes([255] * 256)), "png", "png"
    ),
    "png with alpha": (encoded(picture().convert("RGBA"), "PNG"), "png", "png"),
    "black and white png": (encoded(picture().convert("1"), "PNG"), "png", "png"),
    "16-bit png": (encoded(sixteen_bit(), "PNG"), "png", "png"),
    "16-bit tiff": (encoded(sixteen_bit(), "TIFF"), "tiff", "png"),
    "webp": (encoded(picture(), "WEBP"), "webp", "png"),
    "bmp": (encoded(picture(), "BMP"), "bmp", "png"),
    "ppm": (encoded(picture(), "PPM"), "ppm", "png"),
    "animated gif": (animated(), "gif", "png"),
}  # fmt: skip


@pytest.mark.parametrize("name", READABLE)
def test_an_image_without_resizing_is_stored_as_it_comes(name: str) -> None:
    data, extension, _ = READABLE[name]
    assert checked(data, None, MAX_PIXELS)[:2] == (data, extension)


@pytest.mark.parametrize("name", READABLE)
def test_a_resized_image_is_the_first_frame_in_rgb_with_the_short_side(name: str) -> None:
    data, _, extension = READABLE[name]
    stored, stored_extension, _ = checked(data, 30, MAX_PIXELS)
    assert stored_extension == extension
    with Image.open(io.BytesIO(stored)) as image:
        assert (image.mode, image.size) == ("RGB", (45, 30))
        mean = np.asarray(image, dtype=float).mean((0, 1))
    grey = {"grey jpeg", "black and white png", "16-bit png", "16-bit tiff"}
    expected = pixels().mean((0, 1))
    if name.startswith("16-bit"):
        expected = np.full(3, expected[0])
    elif name in grey:
        expected = np.full(3, expected @ [0.299, 0.587, 0.114])
    np.testing.assert_allclose(mean, expected, atol=6)


@pytest.mark.parametrize(("height", "width"), [(100, 37), (37, 100), (64, 64), (10, 25)])
def test_resizing_agrees_with_torchvision(height: int, width: int) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
    stored, *_ = checked(encoded(image, "PNG"), 32, MAX_PIXELS)
    expected = functional.resize(image, [32], InterpolationMode.BICUBIC)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(stored))), np.asarray(expected))


def test_a_resized_jpeg_is_close_to_the_lossless_one() -> None:
    stored, *_ = checked(encoded(picture(), "JPEG", quality=100, subsampling=0), 30, MAX_PIXELS)
    lossless = picture().resize((45, 30), Image.Resampling.BICUBIC)
    difference = np.asarray(Image.open(io.BytesIO(stored)), float) - np.asarray(lossless, float)
    assert np.abs(difference).mean() < 1.5


def test_sixteen_bits_become_eight_by_value_not_by_clipping() -> None:
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    rgb = np.asarray(to_rgb(Image.fromarray(values)))
    np.testing.assert_array_equal(rgb, np.repeat(np.arange(256).reshape(16, 16, 1), 3, 2))


def test_converting_to_rgb_warns_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    for data, _, _ in READABLE.values():
        with Image.open(io.BytesIO(data)) as image:
            assert to_rgb(image).mode == "RGB"
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("name", ["rgb jpeg", "png", "webp", "bmp", "ppm", "16-bit tiff"])
def test_a_truncated_image_is_unreadable(name: str) -> None:
    data = READABLE[name][0]
    with pytest.raises(UnreadableImageError):
        checked(data[: len(data) * 2 // 3], None, MAX_PIXELS)


def test_an_altered_png_is_unreadable() -> None:
    data = bytearray(READABLE["png"][0])
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(UnreadableImageError):
        checked(bytes(data), None, MAX_PIXELS)


@pytest.mark.parametrize(
    "data", [b"", b"<html>404</html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_image_of_a_known_format_is_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableImageError, match="not an image of a known format"):
        checked(data, None, MAX_PIXELS)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises `width` x `height` pixels and holds none."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.mark.parametrize(("width", "height"), [(1001, 1000), (100_000, 100_000)])
def test_a_decompression_bomb_is_known_by_its_header(width: int, height: int) -> None:
    with pytest.raises(UnreadableImageError, match=r"more than 1000000|DecompressionBomb"):
        checked(png_header(width, height), None, MAX_PIXELS)


def test_an_image_at_the_limit_is_read() -> None:
    data = encoded(Image.new("L", (1000, 1000)), "PNG")
    assert checked(data, None, 1000 * 1000)[0] == data
    with pytest.raises(UnreadableImageError, match="1000 x 1000 pixels are more than 999999"):
        checked(data, None, 1000 * 1000 - 1)


def test_a_thin_image_that_resizing_would_blow_up_is_unreadable() -> None:
    with pytest.raises(UnreadableImageError, match="224 x 2240000 pixels"):
        checked(encoded(Image.new("L", (1, 10_000)), "PNG"), 224, MAX_PIXELS)


def test_reasons_hold_no_memory_addresses() -> None:
    with pytest.raises(UnreadableImageError) as raised:
        checked(b"nothing", None, MAX_PIXELS)
    assert "0x" not in str(raised.value)
