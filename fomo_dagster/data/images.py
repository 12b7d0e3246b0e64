"""Encoded images made safe to store: decoded whole once, and resized where that is asked for.

Decoding tries the listed formats alone, so that no image can start a helper program (as PostScript
would). Orientation tags are ignored, as OpenCLIP's loaders do. Turning pixels into tensors is not
covered (see `data/transforms.py`).
"""

from __future__ import annotations

import io
import re
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
EXTENSIONS = {
    "JPEG": "jpg",
    "MPO": "jpg",  # what Pillow calls a JPEG with more pictures behind it; cameras write them
    "PNG": "png",
    "WEBP": "webp",
    "BMP": "bmp",
    "GIF": "gif",
    "TIFF": "tiff",
    "PPM": "ppm",
}  # Pillow's name of a format -> the extension that readers of shards know it by
JPEG_QUALITY = 95
ADDRESS = re.compile("0x[0-9a-f]+")  # in an error's text; no two runs have the same


class UnreadableImageError(Exception):
    """Why an image cannot be stored; a sample's fault, told to the person who owns it."""


def checked(data: bytes, resize: int | None, max_pixels: int) -> tuple[bytes, str]:
    """The image to store, encoded, and its extension.

    `data` as it is where `resize` is None; else its first frame in RGB with a short side of
    `resize` pixels (bicubic), JPEG where `data` is JPEG and PNG otherwise. Raises
    `UnreadableImageError` for what is not an image or not a whole one, or has more than
    `max_pixels` pixels before or after resizing (looked up before any is decoded).
    """
    try:
        # Pillow warns of odd metadata and of large images; what matters of it is an error here.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_pixels(image.size, max_pixels)
                extension = EXTENSIONS[image.format or ""]
                if resize is None:
                    image.load()
                    return data, extension
                size = _resized(image.size, resize)
                _check_pixels(size, max_pixels)
                small = to_rgb(image).resize(size, Image.Resampling.BICUBIC)
    except (MemoryError, UnreadableImageError):
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError("it is not an image of a known format") from error
    except Exception as error:  # decoders raise nearly anything for broken bytes
        message = ADDRESS.sub("0x…", str(error))
        raise UnreadableImageError(f"{type(error).__name__}: {message}") from error
    file = io.BytesIO()
    if extension == "jpg":
        small.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        return file.getvalue(), "jpg"
    small.save(file, "PNG")
    return file.getvalue(), "png"


def decoded(data: bytes) -> Image.Image:
    """An image as stored, decoded. Raises `UnreadableImageError` where it no longer can be."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        image.load()
    except Exception as error:  # decoders raise nearly anything for broken bytes
        raise UnreadableImageError(
            f"cannot be decoded ({error}); it could be when it was stored, so its shard was "
            "altered: materialise the dataset's shards again"
        ) from error
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` in mode RGB, without its alpha channel; 16-bit greyscale keeps its upper 8 bits.

    Pillow alone would clip 16-bit values at 255, which turns such images white.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # of the direct way to RGB, Pillow warns
    return image.convert("RGB")


def _resized(size: tuple[int, int], short: int) -> tuple[int, int]:
    """Width and height with the short side at `short`; the other is cut to whole pixels."""
    width, height = size
    if width <= height:
        return short, short * height // width
    return short * width // height, short


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise UnreadableImageError(
            f"{width} x {height} pixels are more than {max_pixels}: a decompression bomb?"
        )
