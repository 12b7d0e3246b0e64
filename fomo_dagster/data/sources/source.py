"""What every source of images is: it lists its samples, and gives the bytes of any one of them."""

from __future__ import annotations

from typing import Protocol

import polars as pl

from fomo_dagster.data.samples import SCAN


class Source(Protocol):
    """A dataset's images where they come from; picklable, so that worker processes can read."""

    def scan(self) -> pl.DataFrame:
        """All samples, columns of `SCAN`, sorted by split and key.

        Raises `DataError` where the images are not what the declaration says.
        """
        ...

    def read(self, reference: str) -> bytes:
        """The encoded image that a scan's `reference` names.

        Raises `DataError` where it is gone or is not the one that was scanned.
        """
        ...


def as_scan(rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` with the columns of `SCAN` alone, in the order that every scan has."""
    return rows.select(*SCAN).sort("split", "key")
