"""From what a request brings to features: images are decoded and texts split in a pool of threads,
and what comes of them goes through the release's batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from fomo_dagster.data.decoding import Decoding
from fomo_dagster.data.images import UnreadableImageError, decoded
from fomo_dagster.data.pixels import Preparation, prepared
from fomo_dagster.errors import DataError
from fomo_dagster.serving.batcher import Rows
from fomo_dagster.serving.engine import IMAGES, TEXTS, Floats
from fomo_dagster.serving.limits import Admission, Limits, RequestError
from fomo_dagster.serving.loaded import KeptText, LoadedRelease

_FLOAT_BYTES = 4


class Texts(NamedTuple):
    """features: (N, D). cut: the places of those that were too long; None if unknown."""

    features: Floats
    cut: tuple[int, ...] | None


class Encoding:
    """Encodes for all requests of a server."""

    def __init__(self, limits: Limits, admission: Admission, pool: ThreadPoolExecutor) -> None:
        self._limits, self._admission, self._pool = limits, admission, pool

    async def images(
        self, release: LoadedRelease, images: Sequence[bytes], *, upright: bool = False
    ) -> Floats:
        """Encoded images to features, (N, D), of length 1. upright: turn them by their orientation
        tags first. Raises `RequestError` for an image that cannot be read."""
        how, loop = release.engine.description.images, asyncio.get_running_loop()
        with self._admission.holding(len(images) * 3 * how.size**2 * _FLOAT_BYTES):
            rows = await asyncio.gather(
                *(
                    loop.run_in_executor(self._pool, self._pixels, place, data, how, upright)
                    for place, data in enumerate(images, 1)
                )
            )
            return await _run(release, IMAGES, np.stack(rows))

    async def texts(self, release: LoadedRelease, texts: Sequence[str]) -> Texts:
        """Texts to features, (N, D), of length 1. Those of a text that came before are kept."""
        found = {text: release.texts[text] for text in texts if text in release.texts}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing:
            loop = asyncio.get_running_loop()
            tokens = await loop.run_in_executor(self._pool, release.engine.tokens, missing)
            with self._admission.holding(tokens.ids.nbytes):
                features = await _run(release, TEXTS, tokens.ids)
            cut = None if tokens.cut is None else frozenset(tokens.cut)
            for place, text in enumerate(missing):
                own = features[place].copy()  # a view would keep the features of its whole batch
                found[text] = KeptText(own, None if cut is None else place in cut)
        for text, kept in found.items():
            release.keep(text, kept)
        places = tuple(place for place, text in enumerate(texts) if found[text].was_cut)
        is_known = all(kept.was_cut is not None for kept in found.values())
        return Texts(
            np.stack([found[text].features for text in texts]), places if is_known else None
        )

    def _pixels(self, place: int, data: bytes, how: Preparation, upright: bool) -> Floats:
        most = self._limits.pixels
        try:
            return prepared(decoded(data, Decoding(upright=upright), most), how, most)
        except UnreadableImageError as error:
            raise RequestError(400, f"image {place} cannot be read: {error}") from error


async def _run(release: LoadedRelease, kind: str, rows: Rows) -> Floats:
    features: Floats = await asyncio.wrap_future(release.batcher.submit(kind, rows))
    if not np.isfinite(features).all():
        raise DataError(
            f"release {release.number} gives {kind} features that are not finite: go back to "
            "another with `fomo rollback`"
        )
    return features
