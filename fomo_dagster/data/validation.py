"""Training samples held out in place of the test split, for choosing settings without it."""

from __future__ import annotations

import hashlib

import polars as pl


def validation_split(samples: pl.DataFrame, share: float, seed: int) -> pl.DataFrame:
    """`samples` (SAMPLES, more columns are kept) with a share of each concept's training samples as
    the test split, and the others as the training split; the test split itself is left out.

    Of n images of a concept round(share · n) are held out, at least one and at most n - 1, so one
    image alone is trained on. Which ones is decided by a hash of seed and digest: an image that is
    stored under several keys is one, and its captions stay with it. A dataset without training
    samples has nothing to hold out and keeps its test split.
    """
    train = samples.filter(pl.col("split") == "train")
    if train.is_empty():
        return samples
    priority = pl.Series("_priority", [_priority(seed, d) for d in train["digest"]], pl.UInt64)
    images = pl.col("digest").n_unique().cast(pl.Int64).over("concept")
    wanted = (images * share + 0.5).floor().cast(pl.Int64).clip(1)
    rank = pl.col("_priority").rank("dense").cast(pl.Int64).over("concept")
    held_out = rank <= pl.min_horizontal(wanted, images - 1)
    split = pl.when(held_out).then(pl.lit("test")).otherwise(pl.lit("train"))
    return (
        train.with_columns(priority)
        .with_columns(split=split)
        .select(samples.columns)
        .sort("split", "key")
    )


def _priority(seed: int, digest: str) -> int:
    """Uniform on [0, 2⁶⁴)."""
    hashed = hashlib.blake2b(f"validation:{seed}:{digest}".encode(), digest_size=8)
    return int.from_bytes(hashed.digest(), "little")
