"""Handwritten digits from scikit-learn (`load_digits`: 1,797 images of 8 × 8 pixels, from the test
set of https://doi.org/10.24432/C50P49), enlarged. Each is used once; the last ones are for testing.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
from PIL import Image

from fomo_dagster.data.suite.drawn import Drawing, DrawnGenerator, DrawnParameters, some
from fomo_dagster.errors import InputError

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
AVAILABLE = {"train": 130, "test": 44}  # per digit: the rarest one has 174 images


class Digits(DrawnGenerator):
    """Concept: the digit. The data keep their writers together, so the test hands are new ones."""

    name = "digits"

    def __init__(self, parameters: DrawnParameters, seed: int) -> None:
        """Raises `InputError` too where more images are asked for than there are."""
        super().__init__(parameters, seed)
        for split, available in AVAILABLE.items():
            if self.count(split) > available:
                raise InputError(
                    f"generator 'digits' has {available} {split} images of each digit, "
                    f"not {self.count(split)}: ask for fewer"
                )

    def known_concepts(self) -> tuple[str, ...]:
        return NAMES

    def draw(self, split: str, concept: str, number: int, rng: np.random.Generator) -> Drawing:
        captions = some(
            rng,
            (
                f"a handwritten digit {concept}",
                f"a scan of the number {concept}",
                f"the digit {concept} written by hand",
                f"somebody wrote a {concept}",
            ),
        )
        return Drawing(captions, partial(self._paint, split, NAMES.index(concept), number))

    def _paint(self, split: str, digit: int, number: int) -> Image.Image:
        images = _images()[digit]
        pixels = images[number] if split == "train" else images[-1 - number]
        scan = Image.fromarray(pixels, "L").resize(
            (self.parameters.size, self.parameters.size), Image.Resampling.BICUBIC
        )
        return scan.convert("RGB")


@cache
def _images() -> list[np.ndarray]:
    """By digit: (N, 8, 8) uint8, in the order of the data."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)
    return [pixels[data.target == digit] for digit in range(10)]
