"""Which samples are held out for testing where a dataset does not say so itself."""

from __future__ import annotations

import hashlib

import polars as pl


def held_out(rows: pl.DataFrame, share: float) -> pl.Series:
    """The split ("train" or "test") of each row, from its `concept` and `key`.

    A sample is held out where the hash of its key falls below `share`, so that no other sample has
    a say in it: adding images moves none between the splits. The one exception keeps every concept
    trainable: its sample of the highest hash is always in training.
    """
    positions = pl.Series("position", [_position(key) for key in rows["key"]], pl.Float64)
    is_held_out = (pl.col("position") < share) & (
        pl.col("position") < pl.col("position").max().over("concept")
    )
    split = pl.when(is_held_out).then(pl.lit("test")).otherwise(pl.lit("train"))
    return rows.with_columns(positions).select(split.alias("split")).to_series()


def _position(key: str) -> float:
    """Where the key's hash lies in [0, 1]."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
