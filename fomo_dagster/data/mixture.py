"""How many samples of each pool stand in a batch: shares (λ_D, λ_B, λ_P) turned into counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from fomo_dagster.errors import InputError

POOLS = ("update", "buffer", "pretraining")
"""The pools, in the order of their rows in a batch; ties between them are broken in this order."""

# Shares are written in decimals, and 0.33 · 50 must be 16.5 exactly for a tie to be one.
LARGEST_DENOMINATOR = 1_000_000


def first_stage_shares(shares: Mapping[str, float]) -> dict[str, float]:
    """The shares of a stage without buffer: half of its share to each other pool in use.

    Where only one other pool is in use it takes all. Raises `InputError` where none is.
    """
    used = [pool for pool in POOLS if pool != "buffer" and shares.get(pool, 0) > 0]
    if not used:
        raise InputError("the first stage has no buffer, and no other pool has a share above 0")
    gain = shares.get("buffer", 0) / len(used)
    return {pool: shares[pool] + gain if pool in used else 0.0 for pool in POOLS}


def batch_sizes(batch_size: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Samples of each pool in a batch, by the largest remainder of `batch_size` · share.

    All of `POOLS` are in the result, in that order, and add up to `batch_size`. A pool with share 0
    (or none) has 0. Raises `InputError` where a share above 0 comes to no sample at all, which
    would silently change the method.
    """
    exact = {
        pool: Fraction(shares.get(pool, 0)).limit_denominator(LARGEST_DENOMINATOR) for pool in POOLS
    }
    total = sum(exact.values())
    if total <= 0:
        raise InputError(f"no pool has a share above 0: {dict(shares)}")
    quotas = {pool: batch_size * share / total for pool, share in exact.items()}
    sizes = {pool: math.floor(quota) for pool, quota in quotas.items()}
    by_remainder = sorted(POOLS, key=lambda pool: sizes[pool] - quotas[pool])  # stable
    for pool in by_remainder[: batch_size - sum(sizes.values())]:
        sizes[pool] += 1
    for pool, size in sizes.items():
        if size == 0 and shares.get(pool, 0) > 0:
            raise InputError(
                f"batch_size {batch_size} is too small for the mixture: the {pool} pool's share "
                f"{shares[pool]:g} comes to no sample; raise batch_size, or set the share to 0"
            )
    return sizes
