"""Crops of the photographs that ship inside scikit-image's wheel (no download).

Training and test crops come from disjoint regions of a photograph, or from different faces.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from fomo_dagster.data.suite.drawn import Drawing, DrawnGenerator, article, some

Box = tuple[float, float, float, float]  # left, top, right, bottom as shares of the photograph


class Photograph(NamedTuple):
    """Where the crops of one concept come from."""

    loader: str  # function of skimage.data
    train: Box
    test: Box
    smallest: float = 0.5  # crop, as a share of the region's short side


def _side_by_side(loader: str, at: float) -> Photograph:
    return Photograph(loader, (0, 0, at, 1), (at, 0, 1, 1))


PHOTOGRAPHS = {
    "astronaut": Photograph("astronaut", (0.46, 0, 1, 1), (0.02, 0, 0.46, 1)),
    "brick wall": _side_by_side("brick", 0.65),
    "cat": _side_by_side("cat", 0.55),
    "coffee cup": Photograph("coffee", (0.1, 0, 0.47, 1), (0.47, 0, 0.82, 1)),
    "coins": Photograph("coins", (0, 0, 0.64, 1), (0.64, 0, 1, 1)),
    "galaxies": _side_by_side("hubble_deep_field", 0.65),
    "grass": _side_by_side("grass", 0.65),
    "gravel": _side_by_side("gravel", 0.65),
    "handwriting": _side_by_side("text", 0.6),
    "moon surface": _side_by_side("moon", 0.6),
    "motorcycle": Photograph("stereo_motorcycle", (0.5, 0.15, 0.93, 1), (0.12, 0.15, 0.5, 1)),
    "printed page": _side_by_side("page", 0.6),
    "retina": _side_by_side("retina", 0.6),
    "rocket": Photograph("rocket", (0.36, 0.62, 0.64, 1), (0.4, 0.3, 0.6, 0.62), smallest=0.8),
    "tissue sample": _side_by_side("immunohistochemistry", 0.6),
}
FACE = "face"  # of skimage.data.lfw_subset: 100 people, each its own photograph
TRAIN_FACES = 75


class Photographs(DrawnGenerator):
    """Concept: the photograph's subject."""

    name = "photographs"

    def known_concepts(self) -> tuple[str, ...]:
        return (*PHOTOGRAPHS, FACE)

    def draw(self, split: str, concept: str, number: int, rng: np.random.Generator) -> Drawing:
        of_it = (
            concept if concept.endswith(("s", "grass", "gravel", "writing")) else article(concept)
        )
        captions = some(
            rng,
            (
                f"a photo of {of_it}",
                f"a close-up photo of {of_it}",
                f"part of a photograph of {of_it}",
                f"a cropped picture showing {of_it}",
            ),
        )
        return Drawing(captions, partial(self._paint, split, concept, rng))

    def _paint(self, split: str, concept: str, rng: np.random.Generator) -> Image.Image:
        if concept == FACE:
            first, last = (0, TRAIN_FACES) if split == "train" else (TRAIN_FACES, 100)
            region = Image.fromarray(_faces()[int(rng.integers(first, last))])
            smallest = 0.85
        else:
            photograph = PHOTOGRAPHS[concept]
            region = _region(concept, photograph.train if split == "train" else photograph.test)
            smallest = photograph.smallest
        side = round(min(region.size) * float(rng.uniform(smallest, 1)))
        left = int(rng.integers(region.width - side + 1))
        top = int(rng.integers(region.height - side + 1))
        crop = region.crop((left, top, left + side, top + side))
        size = self.parameters.size
        return crop.resize((size, size), Image.Resampling.BICUBIC).convert("RGB")


@cache
def _region(concept: str, box: Box) -> Image.Image:
    import skimage.data

    pixels = getattr(skimage.data, PHOTOGRAPHS[concept].loader)()
    whole = Image.fromarray(pixels[0] if isinstance(pixels, tuple) else pixels)
    left, top, right, bottom = box
    width, height = whole.size
    corners = round(left * width), round(top * height), round(right * width), round(bottom * height)
    region = whole.crop(corners)
    region.thumbnail((512, 512), Image.Resampling.BICUBIC)  # crops of it are enlarged by none
    return region


@cache
def _faces() -> np.ndarray:
    """(100, 25, 25) uint8: the first half of the subset; the other half shows no faces."""
    import skimage.data

    subset: Callable[[], np.ndarray] = skimage.data.lfw_subset
    faces: np.ndarray = np.rint(subset()[:100] * 255).astype(np.uint8)
    return faces
