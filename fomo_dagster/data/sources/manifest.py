"""Images that a table names: one row per image, with its path and optionally concept, captions,
split and key. Several captions of one image are a list in its row. `splits.py` decides what a value
of `split` means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal

import polars as pl
from pydantic import Field

from fomo_dagster.data.formats import is_image
from fomo_dagster.data.presence import Presence
from fomo_dagster.data.samples import QUARANTINE
from fomo_dagster.data.sources.declared import ALLOW_OUTSIDE, SplitSource
from fomo_dagster.data.sources.files import (
    DigestCache,
    OnDisk,
    lies_in,
    read_reference,
    resolved,
    shortlist,
)
from fomo_dagster.data.sources.rows import Rows, read_rows
from fomo_dagster.data.sources.source import Inspection, as_scan, in_one_form
from fomo_dagster.data.sources.splits import (
    KINDS,
    Assignment,
    SplitRule,
    assign,
    held_out,
    kind_of,
)
from fomo_dagster.data.sources.tables import PLACE, TableFormat
from fomo_dagster.errors import DataError, nearest
from fomo_dagster.paths import problem_of
from fomo_dagster.texts import as_text, composed


class ManifestSource(SplitSource, TableFormat):
    """A table (Parquet, CSV or JSON lines) with one row per image: `path`, and optionally
    `concept`, `caption` (a text or a list), `split` and `key`."""

    places: ClassVar[frozenset[str]] = frozenset({"path", "root"})

    type: Literal["manifest"] = "manifest"
    path: Path = Field(description="The table.")
    root: Path | None = Field(
        None, description="The folder that relative image paths start from; by default the table's."
    )
    allow_outside: bool = ALLOW_OUTSIDE

    def open(
        self, name: str, base: Path, cache: Path, *, one_concept: str | None = None
    ) -> ManifestImages:
        """See `DeclaredSource.open`."""
        path = resolved(base, self.path)
        return ManifestImages(
            path,
            resolved(base, self.root) if self.root else path.parent,
            form=self,
            allow_outside=self.allow_outside,
            split_rule=self.split_rule,
            one_concept=one_concept,
            cache=DigestCache.of_dataset(cache, name, path),
        )

    def presence(self, name: str, base: Path) -> Presence:
        """See `DeclaredSource.presence`."""
        path = resolved(base, self.path)
        if (problem := problem_of(path, "file")) is not None:
            return Presence("missing", str(path), problem)
        return Presence("present", str(path))


class ManifestImages:
    """The images of a table. Relative paths start from `root`.

    `form`: how it is written. `allow_outside`: whether it may name files that are not below `root`.
    `split_rule`: its names are values of `split`; empty: the column does not count. `one_concept`:
    the concept of all images where the table has no column `concept`; None makes that column
    necessary.
    """

    def __init__(
        self,
        table: Path,
        root: Path,
        *,
        form: TableFormat,
        allow_outside: bool,
        split_rule: SplitRule,
        one_concept: str | None,
        cache: DigestCache,
    ) -> None:
        self.table = table
        self.root = root
        self.form = form
        self.allow_outside = allow_outside
        self.split_rule = split_rule
        self.one_concept = one_concept
        self.cache = cache

    def scan(self) -> pl.DataFrame:
        """See `Source.scan`, and `inspect`."""
        return self.inspect().scan

    def inspect(self) -> Inspection:
        """The samples; a key is by default the image's path below `root`.

        Raises `InputError` if there is no such table, and `DataError` for rows that are not as
        declared, images that do not exist or lie elsewhere, or two samples with one key.
        """
        return self._look(digests=True)

    def listing(self) -> Inspection:
        """See `ListingSource.listing`."""
        return self._look(digests=False)

    def _look(self, *, digests: bool) -> Inspection:
        required, optional = ["path", "concept"], ["caption", "split", "key"]
        if self.one_concept is not None:
            optional.append(required.pop())
        table = read_rows(self.table, required, optional, self.form)
        rows = table.frame
        if not self.allow_outside:
            self._check_inside(rows, table.counted_in)
        self._check_suffixes(rows)
        if "concept" not in rows.columns:
            rows = rows.with_columns(concept=pl.lit(self.one_concept))
        if "key" not in rows.columns:
            rows = rows.with_columns(pl.Series("key", [self._key(path) for path in rows["path"]]))
        if "caption" not in rows.columns:
            rows = rows.with_columns(caption=pl.lit([], pl.List(pl.String)))
        rows = in_one_form(rows.rename({"caption": "captions"}))
        splits = self._assigned(rows, table.counted_in)
        if splits.of:
            rows = rows.filter(pl.col("split").is_in(list(splits.ours))).with_columns(
                split=pl.col("split").replace_strict(splits.ours)
            )
        else:
            rows = rows.with_columns(held_out(rows, self.split_rule.test_share))
        self._check_keys(rows, table.counted_in)
        rows, size = self.cache.with_references(
            rows, self._files(rows), f"the table {self.table}", digests=digests
        )
        warnings = (*splits.notes, *self._unread(table))
        return Inspection(
            as_scan(rows), warnings=warnings, unusable=self._unusable(table), bytes=size
        )

    def read(self, reference: str) -> bytes:
        """See `Source.read`."""
        return read_reference(reference)

    def _files(self, rows: pl.DataFrame) -> list[str]:
        on_disk = OnDisk()
        return [on_disk.path(str(self.root / path)) for path in rows["path"]]

    def _key(self, path: str) -> str:
        """Free of where the dataset lies, wherever the table allows it."""
        written, root = Path(composed(os.path.normpath(path))), Path(composed(str(self.root)))
        if written.is_absolute() and written.is_relative_to(root):
            written = written.relative_to(root)
        return written.as_posix()

    def _check_suffixes(self, rows: pl.DataFrame) -> None:
        odd = [
            p for p, file in zip(rows["path"], self._files(rows), strict=True) if not is_image(file)
        ]
        if odd:
            raise DataError(
                f"{self.table} names {len(odd)} files that are not images: {shortlist(odd)}; "
                "take them out of the table, or give images the suffix of their format"
            )

    def _assigned(self, rows: pl.DataFrame, counted_in: str) -> Assignment:
        """What each value of the column `split` is for."""
        if "split" not in rows.columns:
            if self.split_rule.names:
                raise DataError(f"{self.table} has no column 'split', which `splits` is about")
            return Assignment({})
        values = rows["split"].unique(maintain_order=True).to_list()
        unknown = [value for value in values if kind_of(value) is None]
        if unknown and self.split_rule.names is None:
            place = rows[PLACE].filter(rows["split"] == unknown[0])[0]
            raise DataError(
                f"{counted_in} {place} of {self.table} has the split {unknown[0]!r}; "
                f"{nearest(unknown[0], KINDS)} The source's `splits` says what other names are for"
            )
        return assign(values, self.split_rule.names, f"the table {self.table}")

    def _check_inside(self, rows: pl.DataFrame, counted_in: str) -> None:
        """Refuse paths that lead out of the root, whether by `..`, by a link or by being others."""
        paths = self._files(rows)
        root = os.path.realpath(self.root)
        folders = {folder: os.path.realpath(folder) for folder in map(os.path.dirname, paths)}
        outside = [
            (number, written)
            for number, written, path in zip(rows[PLACE], rows["path"], paths, strict=True)
            if not lies_in(root, folders[os.path.dirname(path)])
            or (os.path.islink(path) and not lies_in(root, os.path.realpath(path)))
        ]
        if outside:
            number, written = outside[0]
            raise DataError(
                f"{len(outside)} of {len(paths)} paths in {self.table} lead out of {self.root}, "
                f"first {written!r} in {counted_in} {number}: declare another `root` or, "
                "where you trust the table, `allow_outside: true`"
            )

    def _unread(self, table: Rows) -> tuple[str, ...]:
        if not table.unread:
            return ()
        return (f"{self.table} has columns that are not read: {shortlist(table.unread)}",)

    def _unusable(self, table: Rows) -> pl.DataFrame:
        rows = [
            (
                "train",
                f"{table.counted_in} {number}" if path is None else as_text(path),
                "",
                1,
                reason,
            )
            for number, path, reason in table.unusable
        ]
        return pl.DataFrame(rows, schema=QUARANTINE, orient="row")

    def _check_keys(self, rows: pl.DataFrame, counted_in: str) -> None:
        same = (
            rows.group_by("split", "key", maintain_order=True)
            .agg(PLACE, "path")
            .filter(pl.col(PLACE).list.len() > 1)
        )
        if same.height:
            split, key, numbers, paths = same.row(0)
            raise DataError(
                f"{counted_in}s {numbers[0]} and {numbers[1]} of {self.table} ({paths[0]} and "
                f"{paths[1]}) have the same key {key!r} in split {split!r}; {same.height} keys are "
                "used more than once. Give each image one row (several captions are a list), or a "
                "column `key` that tells them apart"
            )
