"""The stratified, seeded subset of a test split for quick evaluations.

The benchmark's rule (FoMo-in-Flux, arXiv 2408.14471): of n samples with C distinct targets and a
share f, take min(n, max(2C, 300, ⌊f·n⌋)). The targets of a classification dataset are its classes.
Those of a retrieval dataset are its images, so 2C exceeds n and the rule takes all of them: recall
among fewer images and captions is an easier task, whose values do not compare.
"""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction

import polars as pl

MINIMUM_SAMPLES = 300
MINIMUM_PER_CLASS = 2


def subset_size(samples: int, classes: int, share: float) -> int:
    """min(n, max(2C, 300, ⌊f·n⌋)), with f as it is written: 0.043 of 10,000 is 430, not 429."""
    wanted = math.floor(Fraction(str(share)) * samples)
    return min(samples, max(MINIMUM_PER_CLASS * classes, MINIMUM_SAMPLES, wanted))


def subset(samples: pl.DataFrame, share: float, seed: int) -> pl.DataFrame:
    """The rows of `samples` (columns `key`, unique, and `concept`) to evaluate, by key.

    Each class brings min(⌊size / C⌋, n_c) samples drawn without replacement. What is then missing
    is drawn uniformly from all that is left. A draw takes the samples of lowest priority, which is
    a hash of seed and key. So the choice depends neither on the rows' order nor on the machine, and
    another image in one class changes few of the choices.
    """
    classes = samples["concept"].n_unique()
    size = subset_size(len(samples), classes, share)
    if size == len(samples):
        return samples.sort("key")
    # Two priorities, because one that was too high for the class's draw is no longer uniform.
    priorities = [_priorities(key, seed) for key in samples["key"]]
    drawn = samples.with_columns(
        pl.Series("_in_class", [first for first, _ in priorities], dtype=pl.UInt64),
        pl.Series("_in_rest", [second for _, second in priorities], dtype=pl.UInt64),
    ).with_columns(
        (pl.struct("_in_class", "key").rank("ordinal").over("concept") > size // classes).alias(
            "_left"
        )
    )
    return drawn.sort("_left", "_in_rest", "key").head(size).select(samples.columns).sort("key")


def _priorities(key: str, seed: int) -> tuple[int, int]:
    """Two independent numbers, each uniform on [0, 2⁶⁴)."""
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
