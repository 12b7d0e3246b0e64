"""A gallery's rows in groups that a new image leaves alone, but for its own.

A group ends after a row whose key's hash says so, as in content-defined chunking: where it ends
depends on the keys near it and on nothing before. Each group is encoded by itself, in batches of
its own, so that its embeddings are the same bits whether the rest was encoded with it, or copied
from what was there before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from fomo_dagster.store.digests import DIGEST_LENGTH

MEAN_ROWS = 256  # a power of two
MOST_ROWS = 1024  # 2 % of the groups would be longer


@dataclass(frozen=True)
class Group:
    """Rows that are encoded together. digest: of their keys, and of what is embedded. start: the
    place of the first one among all; rows: how many."""

    digest: str
    start: int
    rows: int


def groups_of(rows: pl.DataFrame) -> list[Group]:
    """The groups of rows with the columns split, key and digest, in their order."""
    return list(_groups(rows))


def first_groups(groups: Sequence[Group], rows: pl.DataFrame, count: int) -> list[Group]:
    """The first of the groups of these rows: as many as have `count` rows together, and more until
    one ends where an image does, of which there may be several texts."""
    there = 0
    for number, group in enumerate(groups, 1):
        there += group.rows
        if there >= count and not _same_image(rows, there - 1, there):
            return list(groups[:number])
    return list(groups)


def _same_image(rows: pl.DataFrame, place: int, other: int) -> bool:
    if other == rows.height:
        return False
    names = rows.select("split", "key")
    return names.row(place) == names.row(other)


def _groups(rows: pl.DataFrame) -> Iterator[Group]:
    start, content = 0, hashlib.sha256()
    for number, (split, key, digest) in enumerate(
        rows.select("split", "key", "digest").iter_rows(), 1
    ):
        # Lengths, so that no two different contents give the same bytes.
        content.update(f"{split} {len(key)} {len(digest)} {key}{digest}\n".encode())
        if number - start == MOST_ROWS or _ends_group(split, key) or number == rows.height:
            yield Group(content.hexdigest()[:DIGEST_LENGTH], start, number - start)
            start, content = number, hashlib.sha256()


def _ends_group(split: str, key: str) -> bool:
    hashed = hashlib.blake2b(f"{split} {key}".encode(), digest_size=4).digest()
    return int.from_bytes(hashed, "little") % MEAN_ROWS == 0
