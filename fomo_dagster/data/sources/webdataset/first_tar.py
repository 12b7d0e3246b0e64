"""The first tar of a dataset as a source of its own, for a look that does not read all of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fomo_dagster.data.samples import QUARANTINE
from fomo_dagster.data.sources.source import Inspection, as_scan
from fomo_dagster.data.sources.webdataset.listing import list_shards
from fomo_dagster.data.sources.webdataset.members import scan_tar
from fomo_dagster.errors import DataError
from fomo_dagster.paths import said_of
from fomo_dagster.units import byte_size, counted


class FirstTar:
    """The samples of the first of the tars that `patterns` name, all of one concept and for
    training; relative paths start from `base`. images: extensions."""

    def __init__(
        self, patterns: Sequence[str], base: Path, images: Sequence[str], concept: str
    ) -> None:
        self.patterns, self.base = patterns, base
        self.images, self.concept = images, concept

    def scan(self) -> pl.DataFrame:
        """See `Source.scan`, and `inspect`."""
        return self.inspect().scan

    def inspect(self) -> Inspection:
        """Its samples, with empty digests, by its headers and texts.

        Raises `DataError` if there is no tar, or it cannot be read.
        """
        tars = list_shards(self.patterns, self.base)
        first, size = tars[0], sum(tar.size or 0 for tar in tars)
        try:
            found = scan_tar(Path(first.url), self.images, digests=False)
        except OSError as error:
            raise DataError(said_of(error, first.url)) from error
        place = pl.concat_str("offset", "size", pl.lit(first.url), separator=":")
        samples = found.samples.with_columns(
            split=pl.lit("train"), concept=pl.lit(self.concept), reference=place
        )
        unusable = found.broken.with_columns(
            split=pl.lit("train"), samples=pl.col("samples").fill_null(1)
        )
        said = (
            f"the look is at {first.name}, the first of {counted(len(tars), 'tar')} of "
            f"{byte_size(size)} in all"
        )
        reasons = found.reasons()
        return Inspection(
            as_scan(samples),
            warnings=(said, f"not used of it: {'; '.join(reasons)}") if reasons else (said,),
            unusable=unusable.select(*QUARANTINE),
            is_part=len(tars) > 1,
        )

    def read(self, reference: str) -> bytes:
        """See `Source.read`."""
        offset, size, path = reference.split(":", 2)
        try:
            with open(path, "rb") as file:
                return os.pread(file.fileno(), int(size), int(offset))
        except OSError as error:
            raise DataError(said_of(error, path)) from error
