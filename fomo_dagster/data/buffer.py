"""The buffer: which samples of earlier chunks may be replayed.

Every sample has a priority, a hash of the seed and of its name, and selections keep the smallest.
So they need no state and do not depend on the order of the chunks. As the past grows, the samples
kept of its earlier part only become fewer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from fomo_dagster.data.samples import MANIFEST
from fomo_dagster.errors import InputError, nearest
from fomo_dagster.store.digests import digest_of

RESERVOIR = "reservoir"
CLASS_BALANCED = "class_balanced"
POLICIES = (CLASS_BALANCED, RESERVOIR)


def select(
    chunks: Sequence[pl.DataFrame], capacity: int | None, policy: str, seed: int
) -> pl.DataFrame:
    """The manifest of the buffer after `chunks`, in their order; `capacity` None keeps all samples.

    "reservoir": every sample is equally likely to be kept, which is what reservoir sampling over
    the stream gives (Vitter 1985). "class_balanced": all concepts have equally many, except that
    small ones have all of theirs, and the last places go to concepts chosen by priority. Within a
    concept every sample is equally likely. Raises `InputError` for another selection.
    """
    if policy not in POLICIES:
        raise InputError(f"unknown buffer selection {policy!r}: {nearest(policy, POLICIES)}")
    past = pl.concat([pl.DataFrame(schema=MANIFEST), *chunks])
    if capacity is None or len(past) <= capacity:
        return past
    ranked = past.with_row_index("place").with_columns(_priorities(past, seed).alias("priority"))
    order = ["priority", "place"]
    if policy == CLASS_BALANCED:
        # Taking every concept's first sample, then every second one, … fills concepts evenly.
        turn = pl.col("priority").rank("ordinal").over("dataset", "concept").alias("turn")
        ranked = ranked.with_columns(turn)
        order = ["turn", *order]
    return ranked.sort(order).head(capacity).sort("place").select(*MANIFEST)


def _priorities(manifest: pl.DataFrame, seed: int) -> pl.Series:
    """(N,) unsigned 64-bit hashes of (seed, dataset, key), equal on every machine."""
    salts = {
        dataset: digest_of(["buffer priority", seed, dataset]).encode()
        for dataset in manifest["dataset"].unique()
    }
    hashes = b"".join(
        hashlib.sha256(salts[dataset] + key.encode()).digest()[:8]
        for dataset, key in manifest.select("dataset", "key").iter_rows()
    )
    values: npt.NDArray[np.uint64] = np.frombuffer(hashes, dtype=">u8").astype(np.uint64)
    return pl.Series(values)
