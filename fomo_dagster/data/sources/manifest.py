"""Images that a table names: a row an image, with its path and optionally concept, captions, split
and key. Several captions of one image are a list in its row. What a value of `split` is called,
`splits.py` says.
"""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from fomo_dagster.data.formats import is_image
from fomo_dagster.data.sources.files import (
    LARGEST_IMAGE,
    DigestCache,
    read_reference,
    reference_of,
    shortlist,
)
from fomo_dagster.data.sources.rows import read_rows
from fomo_dagster.data.sources.source import Inspection, as_scan
from fomo_dagster.data.sources.splits import (
    KINDS,
    Assignment,
    SplitNames,
    assign,
    held_out,
    kind_of,
)
from fomo_dagster.errors import DataError, nearest


class ManifestImages:
    """The images of a table. Relative paths start from `root`.

    `splits`: train and test, each with the values of `split` that it is made of; empty: the column
    does not count; None: by their names. `one_concept`: the concept of all images where the table
    has no column `concept`; None makes that column necessary.
    """

    def __init__(
        self,
        table: Path,
        root: Path,
        *,
        splits: SplitNames | None,
        test_share: float,
        one_concept: str | None,
        cache: DigestCache,
    ) -> None:
        self.table = table
        self.root = root
        self.splits = splits
        self.test_share = test_share
        self.one_concept = one_concept
        self.cache = cache

    def scan(self) -> pl.DataFrame:
        """See `Source.scan`, and `inspect`."""
        return self.inspect().scan

    def inspect(self) -> Inspection:
        """The samples; a key is by default the image's path below `root`.

        Raises `InputError` where there is no such table, and `DataError` for rows that are not as
        declared, images that do not exist, or two samples with one key.
        """
        required, optional = ["path", "concept"], ["caption", "split", "key"]
        if self.one_concept is not None:
            optional.append(required.pop())
        rows = read_rows(self.table, required, optional).with_row_index("row", offset=1)
        self._check_suffixes(rows["path"])
        if "concept" not in rows.columns:
            rows = rows.with_columns(concept=pl.lit(self.one_concept))
        if "key" not in rows.columns:
            rows = rows.with_columns(pl.Series("key", [self._key(path) for path in rows["path"]]))
        splits = self._assigned(rows)
        if splits.of:
            rows = rows.filter(pl.col("split").is_in(list(splits.ours))).with_columns(
                split=pl.col("split").replace_strict(splits.ours)
            )
        else:
            rows = rows.with_columns(held_out(rows, self.test_share))
        if "caption" not in rows.columns:
            rows = rows.with_columns(caption=pl.lit([], pl.List(pl.String)))
        self._check_keys(rows)
        paths = [str(self.root / path) for path in rows["path"]]
        digests = self.cache.digests(paths, f"the table {self.table}", LARGEST_IMAGE)
        scan = as_scan(
            rows.rename({"caption": "captions"}).with_columns(
                pl.Series("digest", digests, pl.String),
                pl.Series("reference", list(map(reference_of, paths, digests)), pl.String),
            )
        )
        return Inspection(scan, warnings=splits.notes)

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
        odd = [path for path in paths if not is_image(str(self.root / path))]
        if odd:
            raise DataError(
                f"{self.table} names {len(odd)} files that are not images: {shortlist(odd)}; "
                "take them out of the table, or give images the suffix of their format"
            )

    def _assigned(self, rows: pl.DataFrame) -> Assignment:
        """What each value of the column `split` is for."""
        if "split" not in rows.columns:
            if self.splits:
                raise DataError(f"{self.table} has no column 'split', which `splits` is about")
            return Assignment({})
        values = rows["split"].unique(maintain_order=True).to_list()
        unknown = [value for value in values if kind_of(value) is None]
        if unknown and self.splits is None:
            row = rows["split"].index_of(unknown[0])
            raise DataError(
                f"row {(row or 0) + 1} of {self.table} has the split {unknown[0]!r}; "
                f"{nearest(unknown[0], KINDS)} The source's `splits` says what other names are for"
            )
        return assign(values, self.splits, f"the table {self.table}")

    def _check_keys(self, rows: pl.DataFrame) -> None:
        same = (
            rows.group_by("split", "key", maintain_order=True)
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
