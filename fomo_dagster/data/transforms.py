"""From a decoded image to the tensor that a model sees, in training and in evaluation.

Images are always 8-bit RGB. Every random choice comes from the generator that the caller passes,
never from a global one, so threads and processes cannot change it. Not covered: decoding, and any
augmentation besides the benchmark's random resized crop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from open_clip.transform import image_transform
from PIL import Image
from torchvision.transforms import Compose, InterpolationMode, ToTensor, functional

from fomo_dagster.data.images import to_rgb
from fomo_dagster.data.pixels import RESIZE_MODES
from fomo_dagster.errors import InputError, nearest

INTERPOLATIONS = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}
CROP_RATIO = (3 / 4, 4 / 3)  # width over height, the benchmark's and torchvision's default
CROP_ATTEMPTS = 10


def evaluate_transform(
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    resize_mode: str = "shortest",
    interpolation: str = "bicubic",
) -> Callable[[Image.Image], torch.Tensor]:
    """Both of `evaluate_transforms` in one: image -> (3, size, size) float32."""
    both: Callable[[Image.Image], torch.Tensor] = Compose(
        evaluate_transforms(size, mean, std, resize_mode, interpolation)
    )
    return both


def evaluate_transforms(
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    resize_mode: str = "shortest",
    interpolation: str = "bicubic",
) -> tuple[Callable[[Image.Image], Image.Image], Callable[[Image.Image], torch.Tensor]]:
    """OpenCLIP's evaluation transform, as picklable callables: from an image to one of size × size
    pixels (mode RGB), and from that to (3, size, size) float32.

    `resize_mode` is OpenCLIP's: "shortest" resizes the short side and crops the centre, "longest"
    fits the image in and pads it with black, "squash" ignores the aspect ratio. `interpolation`:
    bicubic or bilinear. Raises `InputError` for another mode.
    """
    if resize_mode not in RESIZE_MODES:
        raise InputError(
            f"unknown resize_mode {resize_mode!r}: {nearest(resize_mode, RESIZE_MODES)}"
        )
    transform = image_transform(
        size,
        is_train=False,
        mean=tuple(mean),
        std=tuple(std),
        resize_mode=resize_mode,
        interpolation=interpolation,
    )
    # Conversion comes first: Pillow resizes palette images by nearest neighbour only.
    steps = [to_rgb, *transform.transforms]
    (first,) = (place for place, step in enumerate(steps) if isinstance(step, ToTensor))
    return Compose(steps[:first]), Compose(steps[first:])


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
    image: Image.Image,
    rng: np.random.Generator,
    *,
    size: int,
    crop_scale: tuple[float, float],
    interpolation: str = "bicubic",
) -> torch.Tensor:
    """The training transform: a random resized crop, bicubic or bilinear, and antialiased.

    Returns (3, size, size) uint8, a quarter of what `normalise` makes of it where it is needed. A
    function of the image and of the state of `rng` alone.
    """
    left, top, width, height = random_crop(image.width, image.height, rng, crop_scale)
    crop = functional.resized_crop(
        to_rgb(image), top, left, height, width, [size, size], INTERPOLATIONS[interpolation]
    )
    pixels: torch.Tensor = functional.pil_to_tensor(crop)
    return pixels  # (3, size, size)


def normalise(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """uint8 pixels (B, 3, H, W) as the float32 that a model sees, on the same device."""
    scaled = pixels.float().div_(255)
    means, stds = scaled.new_tensor([list(mean), list(std)])[:, :, None, None]  # (3, 1, 1)
    return scaled.sub_(means).div_(stds)
