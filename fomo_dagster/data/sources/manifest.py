"""Images that a table names: a row an image, with its path and optionally concept, captions, split
and key. Several captions of one image are a list in its row.
"""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from fomo_dagster.data.samples import SPLITS
from fomo_dagster.data.sources.files import (
    IMAGE_SUFFIXES,
    DigestCache,
    is_image,
    read_reference,
    reference_of,
    shortlist,
)
from fomo_dagster.data.sources.rows import read_rows
from fomo_dagster.data.sources.source import as_scan
from fomo_dagster.data.sources.splits import held_out
from fomo_dagster.errors import DataError, nearest


class ManifestImages:
    """The images of a table. Relative paths start from `root`.

    `one_concept`: the concept of all images where the table has no column `concept`; None makes
    that column necessary.
    """

    def __init__(
        self,
        table: Path,
        root: Path,
        *,
        test_share: float,
        one_concept: str | None,
        cache: DigestCache,
    ) -> None:
        self.table = table
        self.root = root
        self.test_share = test_share
        self.one_concept = one_concept
        self.cache = cache

    def scan(self) -> pl.DataFrame:
        """See `Source.scan`; a key is by default the image's path below `root`.

        Raises `InputError` where there is no such table, and `DataError` for rows that are not as
        declared, images that do not exist, or two samples with one key.
        """
        required, optional = ["path", "concept"], ["caption", "split", "key"]
        if self.one_concept is not None:
            optional.append(required.pop())
        rows = read_rows(self.table, required, optional)
        self._check_suffixes(rows["path"])
        if "concept" not in rows.columns:
            rows = rows.with_columns(concept=pl.lit(self.one_concept))
        if "key" not in rows.columns:
            rows = rows.with_columns(pl.Series("key", [self._key(path) for path in rows["path"]]))
        if "split" not in rows.columns:
            rows = rows.with_columns(held_out(rows, self.test_share))
        if "caption" not in rows.columns:
            rows = rows.with_columns(caption=pl.lit([], pl.List(pl.String)))
        self._check_splits(rows["split"])
        self._check_keys(rows)
        paths = [str(self.root / path) for path in rows["path"]]
        digests = self.cache.digests(paths, f"the table {self.table}")
        return as_scan(
            rows.rename({"caption": "captions"}).with_columns(
                pl.Series("digest", digests, pl.String),
                pl.Series("reference", list(map(reference_of, paths, digests)), pl.String),
            )
        )

    def read(self, reference: str) -> bytes:
        """See `Source.read`."""
        return read_reference(reference)

    def _key(self, path: str) -> str:
        """Free of where the dataset lies, wherever the table allows it."""
        written = Path(os.path.normpath(path))
        if written.is_absolute() and written.is_relative_to(self.root):
            written = written.relative_to(self.root)
        return written.as_posix()

    def _check_suffixes(self, paths: pl.Series) -> None:
        odd = [path for path in paths if not is_image(path)]
        if odd:
            raise DataError(
                f"{self.table} names {len(odd)} files that are not images: {shortlist(odd)}; "
                f"images end in {' '.join(IMAGE_SUFFIXES)}"
            )

    def _check_splits(self, splits: pl.Series) -> None:
        for split in splits.unique().sort():
            if split not in SPLITS:
                row = splits.index_of(split)
                raise DataError(
                    f"row {(row or 0) + 1} of {self.table} has the split {split!r}; "
                    + nearest(split, SPLITS)
                )

    def _check_keys(self, rows: pl.DataFrame) -> None:
        same = (
            rows.with_row_index("row", offset=1)
            .group_by("split", "key", maintain_order=True)
            .agg("row", "path")
            .filter(pl.col("row").list.len() > 1)
        )
        if same.height:
            split, key, numbers, paths = same.row(0)
            raise DataError(
                f"rows {numbers[0]} and {numbers[1]} of {self.table} ({paths[0]} and {paths[1]}) "
                f"have the same key {key!r} in split {split!r}; {same.height} keys are used more "
                "than once. Give each image one row (several captions are a list), or a column "
                "`key` that tells them apart"
            )
