"""What every source of images does: it lists its samples, and gives the bytes of any one of
them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import polars as pl

from fomo_dagster.data.samples import QUARANTINE, SCAN, check_keys
from fomo_dagster.data.sources.files import shortlist
from fomo_dagster.errors import DataError
from fomo_dagster.texts import visible


class Source(Protocol):
    """A dataset's images, wherever they come from; picklable, so that worker processes can read."""

    def scan(self) -> pl.DataFrame:
        """All samples, columns of `SCAN`, sorted by split and key.

        Raises `DataError` if the images are not what the declaration says.
        """
        ...

    def read(self, reference: str) -> bytes:
        """The encoded image that a scan's `reference` names.

        Raises `DataError` if it is gone or is not the one that was scanned, and
        `UnreadableImageError` where it is never read, for its size.
        """
        ...


@dataclass(frozen=True)
class Inspection:
    """The result of looking at a source.

    classes: those to choose from, if the source knows them without their samples. warnings:
    sentences for the person who uses the dataset. unusable: QUARANTINE, samples that are left out
    before their images are read.
    """

    scan: pl.DataFrame
    classes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unusable: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=QUARANTINE))
    bytes: int | None = None
    is_part: bool = False


@runtime_checkable
class TellingSource(Source, Protocol):
    """A source that knows more about its dataset than the samples."""

    def inspect(self) -> Inspection:
        """The samples and what else is known; raises what `scan` raises."""
        ...


def inspect(source: Source) -> Inspection:
    """All that there is to know of what a source holds now; see `Source.scan` for what it raises"""
    return source.inspect() if isinstance(source, TellingSource) else Inspection(source.scan())


@runtime_checkable
class ListingSource(Source, Protocol):
    """A source that can say what it holds without reading its images."""

    def listing(self) -> Inspection:
        """What `TellingSource.inspect` tells, with empty digests; `read` takes the references, and
        cannot tell whether an image changed. Raises what `scan` raises."""
        ...


def listing(source: Source) -> Inspection:
    """What a source holds now, without reading images if it can do so; see `ListingSource`."""
    return source.listing() if isinstance(source, ListingSource) else inspect(source)


def remarks(name: str, found: Inspection) -> tuple[str, ...]:
    """Everything that a person should know of what the source of the dataset `name` holds."""
    parts = (twins_said(name, found), repeats_said(name, found), wordless_said(name, found))
    return (*found.warnings, *(said for part in parts for said in part))


def twins_said(name: str, found: Inspection) -> tuple[str, ...]:
    """A sentence where the dataset `name` has classes that look the same and are not."""
    seen: dict[str, list[str]] = {}
    for concept in sorted({*found.scan["concept"].unique(), *found.classes}):
        seen.setdefault(visible(concept), []).append(concept)
    twins = [" and ".join(map(repr, names)) for names in seen.values() if len(names) > 1]
    if not twins:
        return ()
    more = f" and {len(twins) - 5} more groups" if len(twins) > 5 else ""
    said = "; ".join(twins[:5])
    return (f"dataset {name!r} has classes that look the same and are not: {said}{more}",)


def repeats_said(name: str, found: Inspection) -> tuple[str, ...]:
    """A sentence where test images of the dataset `name` have the bytes of training images."""
    scan = found.scan.filter(pl.col("digest") != "")
    train = (
        scan.filter(split="train")
        .unique("digest", keep="first", maintain_order=True)
        .select("digest", of="key")
    )
    tested = scan.filter(split="test")
    both = tested.join(train, on="digest").sort("key")
    if both.is_empty():
        return ()
    key, of = both.select("key", "of").row(0)
    return (
        f"dataset {name!r} has {both.height} of its {tested.height} test images among its training "
        f"images, byte for byte, such as {key!r} ({of!r})",
    )


def wordless_said(name: str, found: Inspection) -> tuple[str, ...]:
    """A sentence where some training images of the dataset `name` have captions and others not,
    unless its source said so."""
    train = found.scan.filter(split="train").sort("key")
    wordless = train.filter(pl.col("captions").list.len() == 0)
    said = any("train on the prompt" in warning for warning in found.warnings)
    if said or wordless.height in (0, train.height):
        return ()
    return (
        f"{wordless.height} of the {train.height} training images of dataset {name!r} have no "
        f"caption and train on the prompt: {shortlist(wordless['key'].to_list())}",
    )


def in_one_form(rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` with their columns `concept`, `key` and `captions` in the one form that is compared:
    composed (NFC), and classes without white space around them.

    Raises `DataError` for a class whose name is nothing else.
    """
    composed = pl.element().str.normalize("NFC")
    rows = rows.with_columns(
        pl.col("concept").str.normalize("NFC").str.strip_chars(),
        pl.col("key").str.normalize("NFC"),
        pl.col("captions").list.eval(composed),
    )
    nameless = rows.filter(pl.col("concept") == "")
    if nameless.height:
        raise DataError(
            f"the class of {nameless.height} samples has a name of blanks, first that of "
            f"{nameless['key'][0]!r}: give it a name"
        )
    return rows


def as_scan(rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` with the columns of `SCAN` alone, in the order that every scan has.

    Raises `DataError` if a key repeats in a split.
    """
    check_keys(rows, "the dataset")
    return rows.select(*SCAN).sort("split", "key")
