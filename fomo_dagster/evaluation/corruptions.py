"""Common corruptions of images, at five severities (Hendrycks and Dietterich 2019, arXiv
1903.12261).

Their kinds and parameters are those of the authors' released code; elastic transforms and motion
blur follow the package `imagecorruptions` (Michaelis et al. 2019, arXiv 1907.07484), which made
them independent of the size of images and of ImageMagick. Parameters were chosen for pictures of
224 pixels. That package is not used: it draws from NumPy's global generator, which threads share,
and brings OpenCV and Numba.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates, zoom
from scipy.signal import fftconvolve
from skimage.color import hsv2rgb, rgb2hsv

from fomo_dagster.errors import InputError
from fomo_dagster.evaluation.spatter import PARAMETERS, spatter
from fomo_dagster.experiment.evaluation import Corruption
from fomo_dagster.metrics import Metric

ACCURACY, MEAN_ACCURACY = "accuracy_{}_{}", "corruption_accuracy"
METRICS = (
    Metric(
        ACCURACY.format("<kind>", "<severity>"),
        "accuracy on test images that are corrupted so, at a severity from 1 to 5",
    ),
    Metric(MEAN_ACCURACY, "mean of these accuracies over kinds and severities"),
)

Pixels = npt.NDArray[np.float64]  # (H, W, 3), from 0 to 1
Random = np.random.Generator
_PICTURES = (".png", ".jpg", ".jpeg")
GREY = np.array([0.299, 0.587, 0.114])  # of red, green and blue


@dataclass(frozen=True)
class Kind:
    """change: from pixels to pixels, which need not be within 0 and 1. parameters: by severity."""

    change: Callable[[Pixels, Random, Any], Pixels]
    parameters: Sequence[Any]


def corrupted(
    image: Image.Image, kind: Corruption, severity: int, random: Random,
    photographs: Sequence[Image.Image] = (),
) -> Image.Image:  # fmt: skip
    """A picture (mode RGB) of the same size. severity: from 1 to 5; photographs: of frost (mode
    RGB), for that kind alone."""
    pixels = np.asarray(image, dtype=np.float64) / 255
    of = KINDS[kind]
    parameters = of.parameters[severity - 1]
    if kind == "frost":
        parameters = (*parameters, photographs)
    changed = of.change(pixels, random, parameters)
    # Cut to whole levels, as the released code does.
    return Image.fromarray((np.clip(changed, 0, 1) * 255).astype(np.uint8))


def random_of(seed: int, kind: str, severity: int, key: str) -> Random:
    """The generator of a sample, whatever was drawn before."""
    told = f"{kind}:{severity}:{seed}:{key}".encode()
    number = int.from_bytes(hashlib.blake2b(told, digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=number))


def _gaussian_noise(x: Pixels, random: Random, deviation: float) -> Pixels:
    return x + random.normal(size=x.shape, scale=deviation)


def _shot_noise(x: Pixels, random: Random, photons: float) -> Pixels:
    return random.poisson(x * photons) / photons


def _impulse_noise(x: Pixels, random: Random, amount: float) -> Pixels:
    is_hit, is_white = random.random(x.shape) < amount, random.random(x.shape) < 0.5
    return np.where(is_hit, is_white, x)


def _speckle_noise(x: Pixels, random: Random, deviation: float) -> Pixels:
    return x + x * random.normal(size=x.shape, scale=deviation)


def _gaussian_blur(x: Pixels, random: Random, deviation: float) -> Pixels:
    blurred: Pixels = gaussian_filter(x, (deviation, deviation, 0), mode="nearest")
    return blurred


def _defocus_blur(x: Pixels, random: Random, parameters: tuple[int, float]) -> Pixels:
    radius, deviation = parameters
    reach = max(radius, 8)
    along = np.arange(-reach, reach + 1)
    disk = (along[:, None] ** 2 + along[None] ** 2 <= radius**2).astype(np.float64)
    kernel = gaussian_filter(
        disk / disk.sum(), deviation, mode="mirror", radius=1 if radius <= 8 else 2
    )
    room = [(min(reach, side - 1),) * 2 for side in x.shape[:2]]
    around = np.pad(x, [*room, (0, 0)], mode="reflect")
    around = np.pad(around, [(reach - before, reach - after) for before, after in room] + [(0, 0)],
                    mode="edge")  # fmt: skip
    blurred: Pixels = fftconvolve(around, kernel[..., None], mode="valid", axes=(0, 1))
    return blurred


def _glass_blur(x: Pixels, random: Random, parameters: tuple[float, int, int]) -> Pixels:
    deviation, farthest, times = parameters
    height, width = x.shape[:2]
    levels = np.floor(_gaussian_blur(x, random, deviation) * 255)
    places = list(range(height * width))
    rows = range(height - farthest, farthest, -1)
    columns = range(width - farthest, farthest, -1)
    for _ in range(times):
        steps = random.integers(-farthest, farthest, size=(len(rows), len(columns), 2))
        others = (steps[..., 0] * width + steps[..., 1]).tolist()
        for row, of_row in zip(rows, others, strict=True):
            start = row * width
            for column, step in zip(columns, of_row, strict=True):
                # A copy, not a swap: the released code assigns a view of what it has overwritten.
                places[start + column] = places[start + column + step]
    shuffled = levels.reshape(-1, 3)[places].reshape(x.shape) / 255
    return _gaussian_blur(shuffled, random, deviation)


def _motion_blur(x: Pixels, random: Random, parameters: tuple[int, float]) -> Pixels:
    return _blurred_along(x, *parameters, random.uniform(-45, 45))


def _blurred_along(x: Pixels, radius: int, deviation: float, degrees: float) -> Pixels:
    """The mean along a line that begins at each pixel, with the weights of half a Gaussian."""
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    weights /= weights.sum()
    around = np.pad(x, [(len(steps), len(steps))] * 2 + [(0, 0)], mode="edge")
    angle = math.radians(degrees)
    blurred = np.zeros_like(x)
    for step, weight in zip(steps.tolist(), weights, strict=True):
        down = len(steps) + math.ceil(step * math.sin(angle) - 0.5)
        right = len(steps) + math.ceil(step * math.cos(angle) - 0.5)
        blurred += weight * around[down : down + x.shape[0], right : right + x.shape[1]]
    return blurred


def _zoom_blur(x: Pixels, random: Random, parameters: tuple[float, float]) -> Pixels:
    farthest, step = parameters
    factors = np.arange(1, farthest, step)
    total = x + sum(_zoomed(x, factor) for factor in factors)
    blurred: Pixels = total / (len(factors) + 1)
    return blurred


def _zoomed(x: Pixels, factor: float) -> Pixels:
    """The middle of a picture, enlarged to its size."""
    height, width = x.shape[:2]
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    middle = _middle(x, rows, columns)
    return _middle(zoom(middle, (factor, factor, 1), order=1), height, width)


def _middle(x: Pixels, height: int, width: int) -> Pixels:
    top, left = (x.shape[0] - height) // 2, (x.shape[1] - width) // 2
    return x[top : top + height, left : left + width]


def _snow(x: Pixels, random: Random, parameters: tuple[float, ...]) -> Pixels:
    mean, deviation, factor, least, radius, blur, kept = parameters
    flakes = random.normal(size=(*x.shape[:2], 1), loc=mean, scale=deviation)
    flakes = _zoomed(flakes, factor)
    flakes = np.clip(np.where(flakes < least, 0, flakes), 0, 1)
    flakes = _blurred_along(flakes, int(radius), blur, random.uniform(-135, -45))
    grey = (x @ GREY)[..., None]
    whitened = kept * x + (1 - kept) * np.maximum(x, grey * 1.5 + 0.5)
    snowy: Pixels = whitened + flakes + np.rot90(flakes, k=2)
    return snowy


def _fog(x: Pixels, random: Random, parameters: tuple[float, float]) -> Pixels:
    strength, decay = parameters
    height, width = x.shape[:2]
    side = 1 << (max(height, width) - 1).bit_length()
    clouds = _plasma(max(2, side), decay, random)[:height, :width, None]
    brightest = max(x.max(), 1 / 255)  # of a black picture, so that it is not divided by 0
    foggy: Pixels = (x + strength * clouds) * brightest / (brightest + strength)
    return foggy


def _plasma(side: int, decay: float, random: Random) -> npt.NDArray[np.float64]:
    """A height map from 0 to 1 by the diamond-square algorithm, which wraps around its edges.
    side: a power of two."""
    heights = np.zeros((side, side))
    step, roughness = side, 100.0
    while step >= 2:
        half = step // 2

        def mean(total: Any, roughness: float = roughness) -> Any:
            return total / 4 + roughness * random.uniform(-roughness, roughness, total.shape)

        corners = heights[::step, ::step]
        below = corners + np.roll(corners, -1, axis=0)
        heights[half::step, half::step] = mean(below + np.roll(below, -1, axis=1))
        middles, corners = heights[half::step, half::step], heights[::step, ::step]
        upright = middles + np.roll(middles, 1, axis=0)
        heights[::step, half::step] = mean(upright + corners + np.roll(corners, -1, axis=1))
        level = middles + np.roll(middles, 1, axis=1)
        heights[half::step, ::step] = mean(level + corners + np.roll(corners, -1, axis=0))
        step, roughness = half, roughness / decay
    heights -= heights.min()
    heights /= heights.max()
    return heights


def _brightness(x: Pixels, random: Random, added: float) -> Pixels:
    hsv = rgb2hsv(x)
    hsv[..., 2] = np.clip(hsv[..., 2] + added, 0, 1)
    bright: Pixels = hsv2rgb(hsv)
    return bright


def _saturate(x: Pixels, random: Random, parameters: tuple[float, float]) -> Pixels:
    factor, added = parameters
    hsv = rgb2hsv(x)
    hsv[..., 1] = np.clip(hsv[..., 1] * factor + added, 0, 1)
    saturated: Pixels = hsv2rgb(hsv)
    return saturated


def _contrast(x: Pixels, random: Random, factor: float) -> Pixels:
    means = x.mean(axis=(0, 1), keepdims=True)
    changed: Pixels = (x - means) * factor + means
    return changed


def _elastic_transform(x: Pixels, random: Random, strength: float) -> Pixels:
    height, width = x.shape[:2]
    farthest = 0.005 * height

    def moved() -> Pixels:
        noise = random.uniform(-farthest, farthest, size=(height, width))
        smooth: Pixels = gaussian_filter(noise, (0.01 * height, 0.01 * width), truncate=3)
        return smooth * strength

    right, down = moved(), moved()
    rows, columns = np.mgrid[:height, :width]
    where = (rows + down, columns + right)
    channels = [map_coordinates(x[..., c], where, order=1, mode="reflect") for c in range(3)]
    return np.stack(channels, axis=-1)


def _pixelate(x: Pixels, random: Random, share: float) -> Pixels:
    image = _image(x)
    width, height = image.size
    small = (max(1, int(width * share)), max(1, int(height * share)))
    coarse = image.resize(small, Image.Resampling.BOX)
    return _pixels(coarse.resize(image.size, Image.Resampling.NEAREST))


def _jpeg_compression(x: Pixels, random: Random, quality: int) -> Pixels:
    file = io.BytesIO()
    _image(x).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        return _pixels(image)


def _frost(
    x: Pixels, random: Random, parameters: tuple[float, float, Sequence[Image.Image]]
) -> Pixels:
    """A part of a photograph is added. The released code takes one of the first five of its six;
    here it is any."""
    kept, added, photographs = parameters
    chosen = photographs[int(random.integers(len(photographs)))]
    height, width = x.shape[:2]
    factor = max(1.0, height / chosen.height, width / chosen.width)
    if factor > 1:
        chosen = chosen.resize(
            (math.ceil(chosen.width * factor), math.ceil(chosen.height * factor)),
            Image.Resampling.BICUBIC,
        )
    top, left = (
        int(random.integers(there - wanted + 1))
        for there, wanted in ((chosen.height, height), (chosen.width, width))
    )
    part = np.asarray(chosen.crop((left, top, left + width, top + height)), dtype=np.float64) / 255
    frosted: Pixels = kept * x + added * part
    return frosted


def photographs_of(folder: Path) -> list[Path]:
    """The pictures of a folder by name. Raises `InputError` if it has none."""
    paths = sorted(path for path in _files(folder) if path.suffix.lower() in _PICTURES)
    if not paths:
        raise InputError(
            f"there are no photographs of frost in {folder}: name a folder with pictures as "
            "evaluation.corruptions.frost_pictures (the paper's code has six)"
        )
    return paths


def opened(paths: Sequence[Path]) -> list[Image.Image]:
    """Photographs (mode RGB). Raises `InputError` for what is no picture."""
    found = []
    for path in paths:
        try:
            with Image.open(path) as image:
                found.append(image.convert("RGB"))
        except OSError as error:
            raise InputError(f"{path} cannot be read as a picture: {error}") from error
    return found


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_file()]
    except OSError:
        return []


def _image(x: Pixels) -> Image.Image:
    return Image.fromarray(np.round(x * 255).astype(np.uint8))


def _pixels(image: Image.Image) -> Pixels:
    # A little above each level, so that cutting to whole levels gives the same one.
    return (np.asarray(image, dtype=np.float64) + 1e-6) / 255


KINDS: Mapping[Corruption, Kind] = {
    "gaussian_noise": Kind(_gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": Kind(_shot_noise, (60, 25, 12, 5, 3)),
    "impulse_noise": Kind(_impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus_blur": Kind(_defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "glass_blur": Kind(
        _glass_blur, ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
    ),
    "motion_blur": Kind(_motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    "zoom_blur": Kind(
        _zoom_blur, ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
    ),
    "snow": Kind(
        _snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "fog": Kind(_fog, ((1.5, 2), (2.0, 2), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))),
    "brightness": Kind(_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": Kind(_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": Kind(_elastic_transform, (12.5, 16.25, 21.25, 25, 30)),
    "pixelate": Kind(_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": Kind(_jpeg_compression, (25, 18, 15, 10, 7)),
    "speckle_noise": Kind(_speckle_noise, (0.15, 0.2, 0.35, 0.45, 0.6)),
    "gaussian_blur": Kind(_gaussian_blur, (1, 2, 3, 4, 6)),
    "saturate": Kind(_saturate, ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))),
    "frost": Kind(_frost, ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))),
    "spatter": Kind(spatter, PARAMETERS),
}
