"""Resizes pictures of 8 bits by PyTorch, to the same pixels on every machine.

The pixels are defined in integers, so that neither the order of sums nor the processor decides
anything: along each axis, an output pixel is a sum of input pixels by weights of 16 bits, rounded
to 8 bits; rows first. The weights are those of an antialiased filter of Keys (bicubic, a = -0.5) or
a triangle (bilinear), as Pillow's but of 16 bits instead of 22: a level may differ from Pillow's.
(From Pillow 13 on, its own pixels of images that are reduced much more in height than in width are
others than before: it takes columns first there.)

PyTorch has this in machine code, for processors with AVX2 and in general. Before its first use in a
process it is held against the definition below, and left aside where it differs.
"""

from __future__ import annotations

import logging
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

Array = npt.NDArray[np.uint8]

INTERPOLATIONS = ("bicubic", "bilinear")
_REACH = {"bicubic": 2.0, "bilinear": 1.0}  # of the filter, in pixels, where nothing is reduced
_MOST_BITS = 22
_TRIED = (  # height and width, before and after
    ((37, 50), (22, 24)), ((1, 1), (9, 7)), ((33, 16), (16, 31)), ((7, 300), (14, 1)),
    ((61, 9), (61, 5)), ((9, 64), (7, 64)), ((5, 500), (6, 224)), ((375, 3), (224, 3)),
)  # fmt: skip

logger = logging.getLogger(__name__)


def resized(pixels: Array, size: tuple[int, int], interpolation: str = "bicubic") -> Tensor:
    """A picture (H, W, 3), which may be a part of an array, as (3, height, width) of `size`."""
    if not _is_as_defined():
        return torch.from_numpy(resized_by_definition(pixels, size, interpolation))
    return _by_torch(pixels, size, interpolation)


def resized_by_definition(pixels: Array, size: tuple[int, int], interpolation: str) -> Array:
    """As `resized`, slowly: sums of integers below 2^53, which are exact in double precision."""
    planes = pixels.transpose(2, 0, 1).astype(np.float64)  # (3, H, W)
    height, width = size
    if width != planes.shape[2]:
        weights, bits = _weights(planes.shape[2], width, interpolation)
        planes = _rounded(planes @ weights.T, bits)  # (3, H, width)
    if height != planes.shape[1]:
        weights, bits = _weights(planes.shape[1], height, interpolation)
        planes = _rounded(weights @ planes, bits)  # (3, height, width)
    return planes.astype(np.uint8)


def _by_torch(pixels: Array, size: tuple[int, int], interpolation: str) -> Tensor:
    planes = torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W), the channels innermost
    return functional.interpolate(planes[None], size=size, mode=interpolation, antialias=True)[0]


def _rounded(sums: npt.NDArray[np.float64], bits: int) -> npt.NDArray[np.float64]:
    rounded: npt.NDArray[np.float64] = np.floor((sums + 2 ** (bits - 1)) / 2**bits).clip(0, 255)
    return rounded


def _weights(before: int, after: int, interpolation: str) -> tuple[npt.NDArray[np.float64], int]:
    """Whole weights (after, before), and by how many bits their sums are to be shifted."""
    scale = before / after
    reduced = max(scale, 1.0)
    reach = _REACH[interpolation] * reduced
    weights = np.zeros((after, before))
    for row in range(after):
        centre = scale * (row + 0.5)
        first = max(int(centre - reach + 0.5), 0)
        places = np.arange(first, min(int(centre + reach + 0.5), before))
        of_row = _filtered(np.abs((places - centre + 0.5) * (1.0 / reduced)), interpolation)
        weights[row, places] = of_row / of_row.sum()
    most = weights.max()
    fitting = (bits for bits in range(_MOST_BITS) if int(0.5 + most * 2 ** (bits + 1)) >= 2**15)
    bits = next(fitting, _MOST_BITS)
    return np.trunc(weights * 2.0**bits + np.copysign(0.5, weights)), bits


def _filtered(distance: npt.NDArray[np.float64], interpolation: str) -> npt.NDArray[np.float64]:
    if interpolation == "bilinear":
        return np.maximum(1.0 - distance, 0.0)
    near = (1.5 * distance - 2.5) * distance * distance + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    return np.where(distance < 1.0, near, np.where(distance < 2.0, far, 0.0))


@cache
def _is_as_defined() -> bool:
    """Whether PyTorch's machine code gives the pixels of the definition here."""
    drawn = np.random.Generator(np.random.Philox(key=0))
    for (height, width), size in _TRIED:
        pixels = drawn.integers(0, 256, (height + 1, width + 1, 3), dtype=np.uint8)[1:, 1:]
        for interpolation in INTERPOLATIONS:
            expected = resized_by_definition(pixels, size, interpolation)
            if not np.array_equal(_by_torch(pixels, size, interpolation).numpy(), expected):
                logger.warning(
                    "PyTorch %s resizes %d x %d pixels to other ones on this machine than "
                    "elsewhere: images are resized without it, with the pixels that they have "
                    "everywhere and many times slower; install another version of PyTorch",
                    torch.__version__, width, height,
                )  # fmt: skip
                return False
    return True
