"""A pool over tars that nobody has indexed: the sample at a position is computed, not looked up.

Positions come in groups. A group visits `shards_at_once` shards, `samples_per_visit` samples of
each, in one seeded order. Visits go through all shards in consecutive seeded permutations, and each
shard's samples come in consecutive permutations of its own. So no sample repeats before all of its
shard were drawn. A shard without any usable sample gives its visit to the next one.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fomo_dagster.data.decoding import DEFAULT, Decoding
from fomo_dagster.data.images import UnreadableImageError, decoded
from fomo_dagster.data.pools import REPLACEMENTS, Decode, Sample
from fomo_dagster.data.sampling import positions, replacement
from fomo_dagster.data.sources.webdataset.listing import ShardFile, is_local
from fomo_dagster.data.sources.webdataset.shard_cache import ShardCache
from fomo_dagster.errors import DataError

OPEN_SHARDS = 16  # in a process: those of a group or two of each streamed pool
EMPTY_IN_A_ROW = 20  # shards without a usable sample that are taken for chance

logger = logging.getLogger(__name__)


class Visits(NamedTuple):
    """How positions are spread over shards."""

    samples_per_visit: int
    shards_at_once: int

    @property
    def group(self) -> int:
        """Positions of a group of visits."""
        return self.samples_per_visit * self.shards_at_once


class StreamedPool:
    """A pool of the samples of `shards`, in order of their names, through a `cache`."""

    size = None

    def __init__(
        self,
        name: str,
        shards: Sequence[ShardFile],
        visits: Visits,
        cache: ShardCache,
        decoding: Decoding = DEFAULT,
        decode: Decode = decoded,
    ) -> None:
        self.name = name
        self._decoding, self._decode = decoding, decode
        self._shards, self._visits, self._cache = list(shards), visits, cache
        self._ahead: tuple[int, int, int] | None = None  # the group that is fetched ahead of use

    def sample(self, seed: int, stage: int, position: int) -> Sample:
        """See `Pool`. An image that cannot be decoded is replaced by another of its shard."""
        group = position // self._visits.group
        self._fetch_ahead(seed, stage, group + 1)
        place = int(
            positions(seed, stage, f"{self.name} group", self._visits.group, position, 1)[0]
        )
        lane, index = divmod(place, self._visits.samples_per_visit)
        visit = group * self._visits.shards_at_once + lane
        shard, sequence, tar = self._visited(seed, stage, visit)
        start = visit // len(self._shards) * self._visits.samples_per_visit + index
        row = int(positions(seed, stage, sequence, tar.samples, start, 1)[0])
        for attempt in range(REPLACEMENTS):
            try:
                return Sample(tar.captions[row], self._decode(tar.read(row), self._decoding))
            except UnreadableImageError as error:
                logger.warning(
                    "an image of %s (byte %d) cannot be decoded (%s): another one is used "
"instead",
                    shard.url, tar.places[row, 0], error,
                )  # fmt: skip
            row = replacement(seed, stage, self.name, position, attempt, tar.samples)
        raise DataError(
            f"{REPLACEMENTS} images in a row of the shard {shard.url} cannot be decoded: look at "
            "it, or take it out of the dataset's shards"
        )

    def record(self, seed: int, stage: int, count: int) -> dict[str, int]:
        """Shards that the first `count` positions came from, members skipped in them, and how many
        of some images of each (`glimpsed_images`) had transparency or one colour alone."""
        groups = -(-count // self._visits.group)
        visits = groups * self._visits.shards_at_once
        numbers = {int(n) for n in self._numbers(seed, stage, 0, visits)}
        total: Counter[str] = Counter()
        for number in numbers:
            counts = self._cache.counts(self._shards[number]) or {}
            total.update({name: n for name, n in counts.items() if isinstance(n, int)})
        return {
            "streamed_shards": len(numbers),
            "skipped_members": total["broken"],
            "glimpsed_images": total["glimpsed"],
            "transparent_images": total["transparent"],
            "flat_images": total["flat"],
        }

    def _numbers(self, seed: int, stage: int, visit: int, count: int) -> Sequence[int]:
        """Of the shards of some visits, in order."""
        drawn = positions(seed, stage, f"{self.name} shards", len(self._shards), visit, count)
        numbers: list[int] = drawn.tolist()
        return numbers

    def _visited(self, seed: int, stage: int, visit: int) -> tuple[ShardFile, str, _Tar]:
        """The shard of a visit, the name of its sequence of samples, and the tar itself."""
        count = len(self._shards)
        first = visit // count * count  # of this round through all shards
        empty: list[str] = []
        for attempt in range(min(count, EMPTY_IN_A_ROW)):
            (number,) = self._numbers(seed, stage, first + (visit + attempt) % count, 1)
            shard = self._shards[number]
            tar = _opened(self._cache, shard)
            if tar.samples:
                # What stands in for another shard must not repeat what its own visit draws.
                sequence = " instead of ".join([shard.name, *empty[:1]])
                return shard, f"{self.name} {sequence}", tar
            empty.append(shard.name)
        counts = self._cache.counts(shard) or {}
        raise DataError(
            f"{len(empty)} shards of the {self.name} pool in a row have no usable sample: "
            f"{', '.join(empty[:5])}; in the last of them: "
            f"{'; '.join(counts.get('reasons', ())) or 'nothing'}"
        )

    def _fetch_ahead(self, seed: int, stage: int, group: int) -> None:
        """Fetch the shards of a group in the background, once."""
        if self._ahead == (seed, stage, group) or is_local(self._shards[0].url):
            return
        self._ahead = (seed, stage, group)
        at_once = self._visits.shards_at_once
        shards = [self._shards[n] for n in self._numbers(seed, stage, group * at_once, at_once)]
        threading.Thread(target=_fetch, args=(self._cache, shards), daemon=True).start()


class _Tar:
    """An open tar and where its usable samples lie."""

    def __init__(self, cache: ShardCache, shard: ShardFile) -> None:
        self._descriptor, listing = cache.opened(shard)
        self._url = shard.url
        self.samples = listing.height
        self.captions: list[list[str]] = listing["captions"].to_list()
        self.places = listing.select("offset", "size").to_numpy().astype(np.int64)  # (N, 2)

    def read(self, row: int) -> bytes:
        offset, size = self.places[row].tolist()
        data = os.pread(self._descriptor, size, offset)
        if len(data) != size:
            raise DataError(f"the shard {self._url} ends early: it changed while it was used")
        return data

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


@lru_cache(maxsize=OPEN_SHARDS)
def _opened(cache: ShardCache, shard: ShardFile) -> _Tar:
    return _Tar(cache, shard)


def _fetch(cache: ShardCache, shards: Sequence[ShardFile]) -> None:
    for shard in shards:
        try:
            cache.tar(shard)
        except Exception:  # whoever draws from the shard meets the same, and says it
            return
