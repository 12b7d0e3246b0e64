"""The decoder of each way of `Pixels`.

PyTorch's takes plain JPEG from libjpeg-turbo, without Pillow's copies between it and the pixels.
They are those of `images.decoded`, bit for bit: both leave the work to libjpeg-turbo, with the same
exact inverse cosine transform and the same smooth upsampling of chroma. What the library would do
otherwise, or warns of, Pillow decodes, with its own errors: CMYK, damaged and truncated files,
images to be turned, and all other formats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg

from fomo_dagster.data.decoding import DEFAULT, Decoding
from fomo_dagster.data.images import MAX_PIXELS, decoded
from fomo_dagster.data.pixel_rules import Pixels

JPEG_START = b"\xff\xd8\xff"
PLAIN = ("Gray", "YCbCr", "RGB")  # colour spaces that become RGB without a formula of Pillow's

Array = npt.NDArray[np.uint8]


def decoded_array(data: bytes, decoding: Decoding = DEFAULT, max_pixels: int = MAX_PIXELS) -> Array:
    """The picture of an encoded image, (H, W, 3); raises `UnreadableImageError` as `decoded`."""
    array = _plain_jpeg(data, max_pixels) if not decoding.upright else None
    return np.array(decoded(data, decoding, max_pixels)) if array is None else array


def _plain_jpeg(data: bytes, max_pixels: int) -> Array | None:
    """None for what is left to Pillow."""
    if not data.startswith(JPEG_START):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in PLAIN or int(height) * int(width) > max_pixels:
            return None
        array: Array = simplejpeg.decode_jpeg(data, "RGB")
        return array
    except ValueError:  # an error, or a warning of libjpeg's
        return None


DECODE: dict[Pixels, Callable[[bytes, Decoding], Any]] = {
    Pixels.PILLOW: decoded,
    Pixels.TORCH: decoded_array,
}
"""From an encoded image to what the transforms of the same way take; raises
`UnreadableImageError`."""
