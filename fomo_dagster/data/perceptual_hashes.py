"""Perceptual hashes: 64 bits of a picture that mostly stay when it is scaled, compressed or
brightened.

It is `imagehash.phash`: of the picture in grey, at 32 x 32 pixels, which of the 8 x 8 lowest
frequencies of the cosine transform are above their median. So pictures that differ in colour alone,
or in what is smaller than an eighth of them, are the same to it, and so are all pictures of one
colour. benchmarks/near_duplicates.py holds it against other hashes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl
from PIL import Image

from fomo_dagster.data.images import UnreadableImageError
from fomo_dagster.data.index import Index

BITS = 64
SIDE = 32  # pixels of the picture that is transformed
HASHES: dict[str, pl.DataType] = {
    "key": pl.String(),
    "hash": pl.UInt64(),  # null if the image cannot be decoded
    "mirrored": pl.UInt64(),  # of the mirror image
}


def hashes_of(picture: Image.Image) -> tuple[int, int]:
    """The hashes of a picture and of its mirror image."""
    small = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    mirrored = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _phash(small), _phash(mirrored)


def _phash(picture: Image.Image) -> int:
    import imagehash  # which loads SciPy's transforms

    bits = imagehash.phash(picture, hash_size=8, highfreq_factor=SIDE // 8).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@dataclass(frozen=True)
class Hashing:
    """All that a process needs to hash images of an index."""

    index: Index

    def of(self, references: list[str]) -> list[tuple[int, int] | None]:
        """The hashes of images, by `references_of`; None for one that cannot be decoded. Raises
        `DataError` if a shard lacks one."""
        return [self._one(*reference.split(":", 2)) for reference in references]

    def _one(self, offset: str, size: str, shard: str) -> tuple[int, int] | None:
        try:
            return hashes_of(self.index.picture(shard, int(offset), int(size)))
        except UnreadableImageError:
            return None


def references_of(samples: pl.DataFrame) -> list[str]:
    """Where the images of rows of INDEX are, for `Hashing`."""
    return samples.select(pl.format("{}:{}:{}", "offset", "size", "shard")).to_series().to_list()


def hashes_frame(keys: pl.Series, hashes: Iterable[tuple[int, int] | None]) -> pl.DataFrame:
    """HASHES of the images with these keys."""
    rows = [(key, *(each or (None, None))) for key, each in zip(keys, hashes, strict=True)]
    return pl.DataFrame(rows, schema=HASHES, orient="row")
