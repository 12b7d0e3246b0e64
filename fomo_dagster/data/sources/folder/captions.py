"""The captions of a folder's images: those that a table has for them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import polars as pl

from fomo_dagster.data.samples import QUARANTINE
from fomo_dagster.data.sources.files import SEPARATED, resolved, shortlist
from fomo_dagster.data.sources.folder.unused import Unused
from fomo_dagster.data.sources.rows import read_rows
from fomo_dagster.data.sources.tables import TableFormat
from fomo_dagster.data.sources.walking import is_folder, visible
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.paths import problem_of
from fomo_dagster.texts import composed


class Captioned(NamedTuple):
    """Images with their captions.

    found: the images with `captions`. unusable: QUARANTINE, those that are left out because a
    caption of theirs cannot be used. warnings: sentences about what is not read. used: places of
    the files that captions were read from.
    """

    found: pl.DataFrame
    unusable: pl.DataFrame
    warnings: tuple[str, ...]
    used: frozenset[str]


class Captions(Protocol):
    """Where the captions of a folder's images are."""

    def of(self, found: pl.DataFrame, unused: Sequence[Unused]) -> Captioned:
        """The images `found`, which have their `place` below the folder, with their captions.

        unused: the files there that are no images.
        """
        ...


@dataclass(frozen=True)
class CaptionTable:
    """A table of captions for the images of the folder `root`.

    written: its path as it is declared. A relative one starts from `root`, or else from `base`, the
    folder of the declaration. Or else each folder in `root` has a table of its own, whose paths
    start from that folder, as Hugging Face's imagefolder has (`train/metadata.csv`).
    """

    written: Path
    root: Path
    base: Path
    form: TableFormat

    @property
    def places(self) -> tuple[Path, ...]:
        """Where it may lie."""
        folders = (self.root, self.base)
        return tuple(dict.fromkeys(resolved(folder, self.written) for folder in folders))

    def tables(self) -> dict[Path, str]:
        """The table, or tables, and the folder below `root` that its paths start from.

        Raises `InputError` if there is none, or it could be one of two.
        """
        problems = {place: problem_of(place, "file") for place in self.places}
        there = [place for place, problem in problems.items() if problem is None]
        if len(there) > 1 and not os.path.samefile(*there):
            raise InputError(
                f"captions {str(self.written)!r} could be {there[0]} or {there[1]}: declare the "
                "whole path of one, or remove the other"
            )
        if there:
            return {there[0]: ""}
        folders = [] if self.written.is_absolute() else _folders(self.root)
        several = {Path(folder.path) / self.written: folder.name for folder in folders}
        found = {table: name for table, name in several.items() if table.is_file()}
        if not found:
            raise InputError(" and ".join(filter(None, problems.values())))
        return found

    def of(self, found: pl.DataFrame, unused: Sequence[Unused]) -> Captioned:
        """`found`, images with their `place` below `root`, with captions in the order of the table.

        Raises `InputError` as `tables`, and `DataError` where a table has none of the images.
        """
        tables = self.tables()
        read = [self._read(table, folder, found) for table, folder in tables.items()]
        reasons = {place: why for part in read for place, why in part.reasons.items()}
        usable, unusable = without_spoiled(found, reasons)
        texts = pl.concat([part.texts for part in read])
        joined = usable.join(
            texts, left_on="place", right_on="path", how="left", maintain_order="left"
        ).with_columns(pl.col("captions").fill_null([]))
        warnings = tuple(said for part in read for said in part.warnings)
        used = (os.path.relpath(table, self.root).replace(os.sep, "/") for table in tables)
        return Captioned(joined, unusable, warnings, frozenset(used))

    def _read(self, table: Path, folder: str, found: pl.DataFrame) -> _Read:
        rows = read_rows(table, ["path", "caption"], [], self.form)
        frame = rows.frame.with_columns(
            pl.Series("path", [_place(folder, path) for path in rows.frame["path"]])
        )
        texts = frame.group_by("path").agg(
            pl.col("caption").explode(empty_as_null=False).alias("captions")
        )
        absent = texts.join(found, left_on="path", right_on="place", how="anti")["path"].sort()
        warnings = []
        if len(absent):
            said = (
                f"{table} has captions of {len(absent)} images that are not in {self.root}: "
                f"{shortlist(absent.to_list())}; its paths start from "
                + (f"its folder {folder!r}" if folder else "that folder")
                + (SEPARATED if "\\" in absent[0] else "")
            )
            if len(absent) == texts.height:
                raise DataError(said)
            warnings.append(said)
        if rows.unread:
            warnings.append(f"{table} has columns that are not read: {shortlist(rows.unread)}")
        reasons = {_place(folder, path): why for _, path, why in rows.unusable if path is not None}
        nowhere = [
            why
            for _, path, why in rows.unusable
            if path is None or _place(folder, path) not in found["place"]
        ]
        if nowhere:
            warnings.append(f"{table} has {len(nowhere)} captions that are not read: {nowhere[0]}")
        return _Read(texts, reasons, warnings)


class _Read(NamedTuple):
    """What a table holds: `captions` by `path`, why an image of a place cannot be used, and
    sentences about the rest."""

    texts: pl.DataFrame
    reasons: Mapping[str, str]
    warnings: Sequence[str]


def without_spoiled(
    found: pl.DataFrame, reasons: Mapping[str, str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The images whose places have no reason to leave them out, and the others (QUARANTINE)."""
    is_spoiled = pl.col("place").is_in(list(reasons))
    left_out = found.filter(is_spoiled).select(
        "split", "key", pl.lit("").alias("digest"), pl.lit(1, pl.Int64).alias("samples"),
        pl.col("place").replace_strict(reasons, return_dtype=pl.String).alias("reason"),
    )  # fmt: skip
    return found.filter(~is_spoiled), left_out.select(*QUARANTINE)


def _folders(root: Path) -> list[os.DirEntry[str]]:
    try:
        return [entry for entry in visible(root) if is_folder(entry)]
    except OSError:  # of which the look at the images tells
        return []


def _place(folder: str, path: str) -> str:
    return composed(os.path.normpath(os.path.join(folder, path)).replace(os.sep, "/"))
