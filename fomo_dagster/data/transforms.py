"""From encoded images to the tensors that a model sees, in training and in evaluation.

Images are always 8-bit RGB. Every random choice comes from the generator that the caller passes,
never from a global one, so threads and processes cannot change it. Each transform has the ways of
`Pixels`, which agree on 99.9% of the values to a level of 255: Pillow's, of its pictures, and
PyTorch's, of arrays. Not covered: any augmentation besides the benchmark's random resized crop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from open_clip.transform import image_transform
from PIL import Image
from torchvision.transforms import Compose, InterpolationMode, ToTensor, functional

from fomo_dagster.data.images import to_rgb
from fomo_dagster.data.pixel_rules import Pixels
from fomo_dagster.data.pixels import RESIZE_MODES, Preparation, resized_size
from fomo_dagster.data.resizing import Array, resized
from fomo_dagster.errors import InputError, nearest

INTERPOLATIONS = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}
CROP_RATIO = (3 / 4, 4 / 3)  # width over height, the benchmark's and torchvision's default
CROP_ATTEMPTS = 10

Picture = Image.Image | Array
"""A decoded image: Pillow's, or its pixels, (H, W, 3)."""


@dataclass(frozen=True)
class EvaluationTransform:
    """OpenCLIP's evaluation transform, by one of the ways. Picklable."""

    how: Preparation
    pixels: Pixels = Pixels.PILLOW

    def __call__(self, picture: Picture) -> torch.Tensor:
        """What the model sees of a picture: (3, size, size) float32. Raises as `fitted`."""
        return normalise(self.fitted(picture)[None], self.how.mean, self.how.std)[0]

    def fitted(self, picture: Picture) -> torch.Tensor:
        """The picture resized and cropped: (3, size, size) uint8.

        Raises `UnreadableImageError` for one so narrow that nothing or far too much would remain;
        Pillow's way raises what torchvision does.
        """
        if self.pixels is Pixels.PILLOW:
            return levels_of(_openclips(self.how)(picture))
        array = _array(picture)
        height, width = array.shape[:2]
        width, height = resized_size((width, height), self.how)
        return _square(resized(array, (height, width), self.how.interpolation), self.how.size)


def evaluate_transform(
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    resize_mode: str = "shortest",
    interpolation: str = "bicubic",
    pixels: Pixels = Pixels.PILLOW,
) -> EvaluationTransform:
    """From a picture to (3, size, size) float32.

    `resize_mode` is OpenCLIP's: "shortest" resizes the short side and crops the centre, "longest"
    fits the image in and pads it with black, "squash" ignores the aspect ratio. `interpolation`:
    bicubic or bilinear. Raises `InputError` for another mode.
    """
    if resize_mode not in RESIZE_MODES:
        raise InputError(
            f"unknown resize_mode {resize_mode!r}: {nearest(resize_mode, RESIZE_MODES)}"
        )
    (red, green, blue), (of_red, of_green, of_blue) = mean, std
    how = Preparation(
        size, (red, green, blue), (of_red, of_green, of_blue), resize_mode, interpolation
    )
    return EvaluationTransform(how, pixels)


@cache
def _openclips(how: Preparation) -> Callable[[Any], Image.Image]:
    """Resizes and crops as OpenCLIP: from an image to one of size × size pixels, of mode RGB."""
    transform = image_transform(
        how.size,
        is_train=False,
        mean=how.mean,
        std=how.std,
        resize_mode=how.resize_mode,
        interpolation=how.interpolation,
    )
    # Conversion comes first: Pillow resizes palette images by nearest neighbour only.
    steps = [to_rgb, *transform.transforms]
    (first,) = (place for place, step in enumerate(steps) if isinstance(step, ToTensor))
    resize: Callable[[Any], Image.Image] = Compose(steps[:first])
    return resize


def levels_of(picture: Image.Image) -> torch.Tensor:
    """The pixels of a picture (mode RGB): (3, H, W) uint8."""
    pixels: torch.Tensor = functional.pil_to_tensor(picture)
    return pixels


def _array(picture: Picture) -> Array:
    return np.array(to_rgb(picture)) if isinstance(picture, Image.Image) else picture


def _square(picture: torch.Tensor, size: int) -> torch.Tensor:
    """The middle of a picture (3, H, W), with black around where it is smaller."""
    height, width = picture.shape[1:]
    if width < size or height < size:
        padded = picture.new_zeros(3, max(height, size), max(width, size))
        top, left = max(0, size - height) // 2, max(0, size - width) // 2
        padded[:, top : top + height, left : left + width] = picture
        picture, (height, width) = padded, padded.shape[1:]
    top, left = round((height - size) / 2), round((width - size) / 2)
    return picture[:, top : top + size, left : left + size]


def random_crop(
    width: int, height: int, rng: np.random.Generator, scale: tuple[float, float]
) -> tuple[int, int, int, int]:
    """A crop (left, top, width, height) in pixels, distributed as torchvision's RandomResizedCrop.

    Its area is a uniform share of the image's within `scale`, its ratio log-uniform in
    `CROP_RATIO`. Where `CROP_ATTEMPTS` draws do not fit into the image, the crop is the largest
    centred one with an allowed ratio.
    """
    for _ in range(CROP_ATTEMPTS):
        area = width * height * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])))
        crop_width = round(math.sqrt(area * ratio))
        crop_height = round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(rng.integers(width - crop_width + 1))
            top = int(rng.integers(height - crop_height + 1))
            return left, top, crop_width, crop_height
    crop_width = min(width, round(height * CROP_RATIO[1]))
    crop_height = min(height, round(width / CROP_RATIO[0]))
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height


def augment(
    picture: Picture,
    rng: np.random.Generator,
    *,
    size: int,
    crop_scale: tuple[float, float],
    interpolation: str = "bicubic",
    pixels: Pixels = Pixels.PILLOW,
) -> torch.Tensor:
    """The training transform: a random resized crop, bicubic or bilinear, and antialiased.

    Returns (3, size, size) uint8, a quarter of what `normalise` makes of it where it is needed. A
    function of the picture and of the state of `rng` alone.
    """
    if pixels is Pixels.PILLOW:
        assert isinstance(picture, Image.Image)
        left, top, width, height = random_crop(picture.width, picture.height, rng, crop_scale)
        return levels_of(
            functional.resized_crop(
                to_rgb(picture), top, left, height, width, [size, size],
                INTERPOLATIONS[interpolation],
            )
        )  # fmt: skip
    array = _array(picture)
    left, top, width, height = random_crop(array.shape[1], array.shape[0], rng, crop_scale)
    crop = array[top : top + height, left : left + width]
    return resized(crop, (size, size), interpolation)


def normalise(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """uint8 pixels (B, 3, H, W) as the float32 that a model sees, on the same device."""
    if pixels.device.type == "cpu":
        return normalise_into(torch.empty(pixels.shape), pixels, mean, std)
    scaled = pixels.float().div_(255)
    means, stds = scaled.new_tensor([list(mean), list(std)])[:, :, None, None]  # (3, 1, 1)
    return scaled.sub_(means).div_(stds)


def normalise_into(
    out: torch.Tensor, pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """As `normalise`, on the CPU, into a tensor; returns it."""
    means, stds = out.new_tensor([list(mean), list(std)])[:, :, None, None]  # (3, 1, 1)
    # An image at a time, which stays in the cache from one operation to the next.
    image = (-1, *pixels.shape[-3:])
    for levels, scaled in zip(pixels.view(image), out.view(image), strict=True):
        torch.div(levels, 255, out=scaled).sub_(means).div_(stds)
    return out
