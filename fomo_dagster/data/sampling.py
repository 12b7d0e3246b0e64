"""Which sample is at a position of a pool, and the random bits that belong to it.

Both are pure functions of (seed, stage, pool, position), so neither a restart nor the number of
workers changes anything. A pool is drawn as consecutive permutations: no sample repeats before all
have come.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fomo_dagster.errors import InputError
from fomo_dagster.store.digests import digest_of

SMALL = 100_000  # entries: a permutation of fewer is made in milliseconds and takes little memory
KEPT_LARGE = 16  # three pools or more, each at times between two, and some room
KEPT_SMALL = 64  # a pool that is streamed has one for each shard that it draws from at once


def positions(
    seed: int, stage: int, pool: str, size: int, start: int, count: int
) -> npt.NDArray[np.int64]:
    """Indices (count,) into a pool of `size` samples at positions start, …, start + count - 1.

    Position p is entry p mod size of the permutation number p div size. Raises `InputError` for an
    empty pool.
    """
    if size < 1:
        raise InputError(f"the {pool} pool of stage {stage} is empty: there is nothing to draw")
    wanted = np.arange(start, start + count)
    rounds, places = np.divmod(wanted, size)
    drawn = np.empty(count, dtype=np.int64)
    for number in np.unique(rounds):
        here = rounds == number
        permutation = _kept_small if size < SMALL else _kept_large
        drawn[here] = permutation(seed, stage, pool, size, int(number))[places[here]]
    return drawn


def sample_seed(seed: int, stage: int, pool: str, position: int) -> int:
    """128 bits for the choices made at a position: its caption and its augmentation."""
    return int(digest_of(["sample", seed, stage, pool, position]), 16)


def replacement(seed: int, stage: int, pool: str, position: int, attempt: int, size: int) -> int:
    """The index, below `size`, of the sample that replaces an unusable one at a position."""
    key = ["replacement", seed, stage, pool, position, attempt]
    return int(digest_of(key), 16) % size


def _permutation(seed: int, stage: int, pool: str, size: int, number: int) -> npt.NDArray[np.int64]:
    """A permutation (size,). Random words are sorted here, for numpy promises that the words of a
    bit generator stay the same in later versions, but not what `Generator.permutation` makes of
    them (NEP 19)."""
    key = int(digest_of(["permutation", seed, stage, pool, number]), 16)
    order = np.argsort(np.random.Philox(key=key).random_raw(size), kind="stable")
    order.flags.writeable = False
    return order


_kept_small = lru_cache(KEPT_SMALL)(_permutation)
_kept_large = lru_cache(KEPT_LARGE)(_permutation)
