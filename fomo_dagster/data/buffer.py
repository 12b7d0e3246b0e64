"""The buffer: which samples of earlier chunks may be replayed.

Every sample has a priority, a hash of the seed and of its name, and selections keep the smallest,
or those that stand for their concept by features that no stage changes. So they need no state and
do not depend on the order of the chunks. As the past grows, the samples kept of its earlier part
only become fewer. Selections by losses look anew at each stage, by its own weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from math import ceil, inf

import numpy as np
import numpy.typing as npt
import polars as pl

from fomo_dagster.data.representatives import ORDERS
from fomo_dagster.data.samples import MANIFEST
from fomo_dagster.errors import DataError, InputError, nearest
from fomo_dagster.store.digests import digest_of
from fomo_dagster.units import byte_size

RESERVOIR = "reservoir"
CLASS_BALANCED = "class_balanced"
BY_FEATURES = tuple(ORDERS)
BY_LOSSES = ("hardest", "most_forgotten")
POLICIES = (CLASS_BALANCED, RESERVOIR, *BY_FEATURES, *BY_LOSSES)

CONCEPT = ("dataset", "concept")
MEBIBYTE = 2**20

OfSamples = Callable[[str], pl.DataFrame]
"""From a dataset to a column beside the `key` of its training samples."""


def select(
    chunks: Sequence[pl.DataFrame],
    capacity: int | None,
    policy: str,
    seed: int,
    *,
    capacity_mib: float | None = None,
    sizes: OfSamples | None = None,
    features: OfSamples | None = None,
    losses: OfSamples | None = None,
) -> pl.DataFrame:
    """The manifest of the buffer after `chunks`, in their order; without a capacity, all samples.

    capacity: in samples. capacity_mib: of their stored images, whose bytes are the column `size` of
    `sizes`. Samples are kept in the order of the selection until the next one would not fit either.

    "reservoir": every sample is equally likely to be kept, which is what reservoir sampling over
    the stream gives (Vitter 1985). "class_balanced": all concepts have equally many, except that
    small ones have all of theirs, and the last places go to concepts chosen by priority. Within a
    concept every sample is equally likely. "herding", "k_centre": as many of each concept, in the
    order of `representatives` by the column `features` of `features`, (D,) float32 each.
    "hardest", "most_forgotten": as many of each concept, those with the highest `loss` of `losses`.
    A concept must come with one chunk. Raises `InputError` for another selection, and where not
    even the first image fits; `DataError` where `sizes`, `features` or `losses` lack a sample.
    """
    if policy not in POLICIES:
        raise InputError(f"unknown buffer selection {policy!r}: {nearest(policy, POLICIES)}")
    past = pl.concat([pl.DataFrame(schema=MANIFEST), *chunks])
    if past.is_empty() or (capacity is None and capacity_mib is None):
        return past
    samples = len(past) if capacity is None else capacity
    room = inf if capacity_mib is None else capacity_mib * MEBIBYTE
    ranked = past.with_row_index("place").with_columns(
        _priorities(past, seed).alias("priority"), size=pl.lit(0)
    )
    if capacity_mib is not None:
        assert sizes is not None
        ranked = _beside(ranked.drop("size"), sizes, "size")
    if len(past) <= samples and ranked["size"].sum() <= room:
        return past
    order = ["priority", "place"]
    if policy != RESERVOIR:
        # Taking every concept's first sample, then every second one, … fills concepts evenly.
        order = ["turn", *order]
    if policy == CLASS_BALANCED:
        turn = pl.col("priority").rank("ordinal").over(CONCEPT).alias("turn")
        ranked = ranked.with_columns(turn)
    elif policy in BY_LOSSES:
        assert losses is not None
        # Equal losses by priority, which comes first in the table.
        ranked = _beside(ranked.sort("priority", "place"), losses, "loss").with_columns(
            pl.col("loss").rank("ordinal", descending=True).over(CONCEPT).alias("turn")
        )
    elif policy in BY_FEATURES:
        assert features is not None
        ranked = _in_turns(ranked, features, policy, _turns(ranked, samples, room))
    kept = ranked.sort(order).head(samples)
    # One that is passed over for a smaller one would come back when the past grows, so none is.
    fitting = kept.filter(pl.col("size").cum_sum() <= room)
    if fitting.is_empty() and len(kept):
        needed = kept["size"][0]
        raise InputError(
            f"buffer.capacity_mib is {capacity_mib:g}, and the first image to keep takes "
            f"{byte_size(needed)}: raise it to {ceil(1000 * needed / MEBIBYTE) / 1000:g} at least"
        )
    return fitting.sort("place").select(*MANIFEST)


def _turns(ranked: pl.DataFrame, samples: int, room: float) -> int:
    """After how many turns a buffer is full, however small the images are that they bring."""
    smallest_first = pl.col("size").rank("ordinal").over(CONCEPT).alias("turn")
    after = (
        ranked.group_by(smallest_first)
        .agg(pl.len(), pl.col("size").sum())
        .sort("turn")
        .with_columns(pl.col("len", "size").cum_sum())
    )
    not_full = after.filter((pl.col("len") < samples) & (pl.col("size") <= room))
    return not_full.height + 1


def _in_turns(ranked: pl.DataFrame, features: OfSamples, policy: str, turns: int) -> pl.DataFrame:
    """The samples that a policy takes in the first turns, with the column `turn`."""
    taken = []
    for (_,), rows in ranked.group_by("dataset", maintain_order=True):  # one's features at a time
        rows = _beside(rows, features, "features")
        for concept in rows.partition_by("concept", maintain_order=True):
            places = ORDERS[policy](concept["features"].to_numpy(), turns)
            chosen = concept.drop("features")[places]
            taken.append(chosen.with_row_index("turn"))
    return pl.concat(taken)


def _beside(samples: pl.DataFrame, of_samples: OfSamples, column: str) -> pl.DataFrame:
    """The samples with a column of their datasets' tables; raises `DataError` if it lacks one."""
    told = [
        of_samples(dataset).select(pl.lit(dataset).alias("dataset"), "key", column)
        for dataset in samples["dataset"].unique().sort()
    ]
    joined = samples.join(pl.concat(told), on=["dataset", "key"], how="left", maintain_order="left")
    missing = joined.filter(pl.col(column).is_null())
    if len(missing):
        raise DataError(
            f"the {column} of {len(missing)} samples of earlier chunks is not known, such as of "
            f"{'/'.join(missing.select('dataset', 'key').row(0))}: materialise the datasets' "
            "shards, and what follows them, again"
        )
    return joined


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
