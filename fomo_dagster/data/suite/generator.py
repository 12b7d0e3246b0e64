"""What a generator of the suite is: it lists its samples, and renders any one of them alone.

Generators are declared in a dataset's `source` (`GeneratedSource`) and made by
`registry.create_generator`. Storing the images is not theirs: that is what shards are for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from PIL import Image


@dataclass(frozen=True, slots=True)
class GeneratedSample:
    """One sample before it is rendered."""

    key: str  # unique over both splits, starts with the split's name
    concept: str
    captions: tuple[str, ...]  # one to three


class Generator(Protocol):
    """A seeded set of images; picklable, so that worker processes can render.

    An image is a pure function of the generator's name, version, parameters and seed, and of the
    sample's split and key. Rendering in any order, process or number of times gives the same
    pixels.
    """

    version: int

    def samples(self, split: str) -> list[GeneratedSample]:
        """All samples of `split` ("train" or "test"), concept by concept; renders nothing."""
        ...

    def render(self, split: str, key: str) -> Image.Image:
        """The RGB image of one sample; raises `DataError` where `key` is not in `split`."""
        ...
