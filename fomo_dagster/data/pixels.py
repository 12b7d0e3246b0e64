"""What a model sees of an image at evaluation, by NumPy and Pillow alone.

For programs that do without PyTorch. The pixels are those of `transforms.evaluate_transform` by
Pillow, bit for bit. Those by which models are trained and evaluated (`Pixels.TORCH`) differ from
them by a level of 255 here and there: at most one on 99.9% of the values of an image.
Decoding is in `images.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from fomo_dagster.data.images import MAX_PIXELS, UnreadableImageError

RESIZE_MODES = ("shortest", "longest", "squash")
RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Preparation:
    """How images become a model's input.

    size: pixels of its square. mean is subtracted from red, green and blue in [0, 1], and std
    divides what remains. resize_mode: as of `transforms.evaluate_transforms`; interpolation:
    bicubic or bilinear.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size is {self.size}, and must be at least 1")
        if self.resize_mode not in RESIZE_MODES:
            raise ValueError(f"resize_mode is {self.resize_mode!r}, none of {RESIZE_MODES}")
        if self.interpolation not in RESAMPLING:
            raise ValueError(f"interpolation is {self.interpolation!r}, none of {[*RESAMPLING]}")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(self.std):
            raise ValueError("mean and std are three numbers each, and none of std is 0")


def prepared(
    picture: Image.Image, how: Preparation, max_pixels: int = MAX_PIXELS
) -> npt.NDArray[np.float32]:
    """A picture (mode RGB) as the model takes it: (3, size, size) float32.

    Raises `UnreadableImageError` as `resized_size`.
    """
    width, height = resized_size(picture.size, how, max_pixels)
    resized = picture.resize((width, height), RESAMPLING[how.interpolation])
    square = _square(resized, how.size)
    pixels = np.asarray(square, np.uint8).transpose(2, 0, 1).astype(np.float32)  # (3, size, size)
    pixels /= np.float32(255)
    pixels -= np.asarray(how.mean, np.float32)[:, None, None]
    pixels /= np.asarray(how.std, np.float32)[:, None, None]
    return np.ascontiguousarray(pixels)


def resized_size(
    size: tuple[int, int], how: Preparation, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """The width and height that a picture of this width and height is resized to.

    Raises `UnreadableImageError` for one so narrow that it would have no pixels then, or more than
    `max_pixels`.
    """
    width, height = _resized(size, how)
    if not 0 < width * height <= max_pixels:
        raise UnreadableImageError(
            f"{size[0]} x {size[1]} pixels would be resized to {width} x {height}, "
            f"and 1 to {max_pixels} pixels are allowed: it is too narrow"
        )
    return width, height


def _resized(size: tuple[int, int], how: Preparation) -> tuple[int, int]:
    """Width and height, rounded as torchvision and OpenCLIP do."""
    width, height = size
    if how.resize_mode == "squash":
        return how.size, how.size
    if how.resize_mode == "longest":
        ratio = max(height / how.size, width / how.size)
        return round(width / ratio), round(height / ratio)
    if width <= height:
        return how.size, int(how.size * height / width)
    return int(how.size * width / height), how.size


def _square(picture: Image.Image, size: int) -> Image.Image:
    """The middle of a picture, with black around where it is smaller."""
    width, height = picture.size
    if width < size or height < size:
        padded = Image.new("RGB", (max(width, size), max(height, size)))
        padded.paste(picture, (max(0, size - width) // 2, max(0, size - height) // 2))
        picture, (width, height) = padded, padded.size
    left, top = round((width - size) / 2), round((height - size) / 2)
    if (width, height) == (size, size):
        return picture
    return picture.crop((left, top, left + size, top + size))
