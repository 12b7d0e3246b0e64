"""A look at a dataset before anything of it is stored: how many samples, how large, what is odd.

Samples are listed without reading their images where the source can do so; of the images, an evenly
spread part is decoded as shards would decode them, in a time that can be bounded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from fomo_dagster.data.decoding import WHITE, Decoding
from fomo_dagster.data.images import DARK, Seen, UnreadableImageError, measured
from fomo_dagster.data.reading import read_in_order
from fomo_dagster.data.samples import SPLITS
from fomo_dagster.data.sources.files import shortlist
from fomo_dagster.data.sources.source import Inspection, Source, listing
from fomo_dagster.progress import Progress, no_progress
from fomo_dagster.store.digests import digest_of_bytes
from fomo_dagster.units import byte_size, counted

TINY = 32  # pixels: what a small CLIP sees, so that a shorter side is enlarged for any model
MOST_CLASSES, FEWEST_CLASSES = 3, 2  # that are named, where there are more
USES = {"train": "to train on", "test": "to test on"}
ODD = {
    "transparent": ("has transparency", "have transparency"),
    "flat": ("is of one colour alone", "are of one colour alone"),
    "dark": (
        f"is nearly black: no level of 255 is above {DARK}",
        f"are nearly black: no level of 255 is above {DARK}",
    ),
    "single_channel": ("has one channel, shown as grey", "have one channel, shown as grey"),
    "tiny": (f"has a side below {TINY} pixels", f"have a side below {TINY} pixels"),
    "turned": (
        "has an orientation tag, which is ignored (`upright: true` heeds it)",
        "have an orientation tag, which is ignored (`upright: true` heeds it)",
    ),
    "rescaled": (
        "declares no white; it is found from the values",
        "declare no white; it is found from the values",
    ),
}  # of one image and of several
SIGHTS: dict[str, pl.DataType] = {
    "digest": pl.String(),
    "bytes": pl.Int64(),
    "width": pl.Int64(),
    "height": pl.Int64(),
    "single_channel": pl.Boolean(),
    "dark": pl.Boolean(),
    "tiny": pl.Boolean(),
    **dict.fromkeys(Seen._fields, pl.Boolean()),
    "reason": pl.String(),
}  # of the images looked at; reason: why one cannot be decoded, then without sizes


class Looking(NamedTuple):
    """All that a process needs to look at a source's images."""

    source: Source
    decoding: Decoding

    def of(self, references: list[str]) -> list[tuple[Any, ...]]:
        """Rows of `SIGHTS`, in order. Raises `DataError` if the source cannot give an image."""
        return [self._one(reference) for reference in references]

    def _one(self, reference: str) -> tuple[Any, ...]:
        nothing = [False] * (3 + len(Seen._fields))
        try:
            data = self.source.read(reference)
        except UnreadableImageError as error:
            return ("", None, None, None, *nothing, str(error))
        digest, size = digest_of_bytes(data), len(data)
        try:
            width, height, single_channel, dark, seen = measured(data, self.decoding)
        except UnreadableImageError as error:
            return (digest, size, None, None, *nothing, str(error))
        tiny = min(width, height) < TINY
        return (digest, size, width, height, single_channel, dark, tiny, *seen, None)


@dataclass(frozen=True)
class Survey:
    """What a look at a dataset found.

    found: its samples; their digests may be empty. sights: `SIGHTS` of the images looked at, with
    split, key and concept. background: the colour that transparency shows.
    """

    found: Inspection
    sights: pl.DataFrame
    background: str

    @property
    def classes(self) -> list[str]:
        return sorted({*self.found.scan["concept"].unique(), *self.found.classes})

    @property
    def counts(self) -> dict[str, int]:
        """Split → images."""
        return dict(self.found.scan.group_by("split").len().iter_rows())

    @property
    def lost(self) -> float:
        """The share of samples that cannot be used, among those looked at."""
        lost = self.unreadable.height + int(self.found.unusable["samples"].sum())
        seen = self.sights.height + int(self.found.unusable["samples"].sum())
        return lost / max(1, seen)

    @property
    def is_whole(self) -> bool:
        """Whether every image was looked at, and the source holds no more."""
        return self.sights.height == self.found.scan.height and not self.found.is_part

    @property
    def unreadable(self) -> pl.DataFrame:
        """The sights of images that cannot be decoded."""
        return self.sights.filter(pl.col("reason").is_not_null())

    def odd(self, kind: str) -> list[str]:
        """The keys of the images of a kind of `ODD`."""
        return self.sights.filter(pl.col(kind))["key"].to_list()

    @property
    def same(self) -> pl.DataFrame:
        """Images of the same bytes: their keys, and how many splits and classes have them."""
        groups = self.sights.filter(pl.col("digest") != "").group_by("digest", maintain_order=True)
        told = groups.agg(
            "key", splits=pl.col("split").n_unique(), classes=pl.col("concept").n_unique()
        )
        return told.filter(pl.col("key").list.len() > 1)

    def sentences(self) -> Iterator[str]:
        """What a person should know, the main thing first."""
        counts, scan = self.counts, self.found.scan
        used = ", ".join(f"{counts.get(split, 0):,} {use}" for split, use in USES.items())
        yield f"{scan.height:,} images of {counted_classes(len(self.classes))}: {used}"
        for split in USES:
            if counts.get(split):
                yield f"{split}: {self._by_class(split)}"
        untested = sorted({*self.classes} - {*scan.filter(split="test")["concept"]})
        if untested and counts.get("test"):
            have = "class has" if len(untested) == 1 else "classes have"
            yield f"{len(untested):,} {have} no image to test on: {shortlist(untested)}"
        yield from self._of_sizes()
        yield from self._of_captions()
        yield from self._of_odd()
        unusable = self.found.unusable
        if unusable.height:
            row = unusable.row(0, named=True)
            yield (
                f"{counted(int(unusable['samples'].sum()), 'image')} cannot be used and will be "
                f"left out, such as {row['key']} ({row['reason']})"
            )

    def _by_class(self, split: str) -> str:
        rows = self.found.scan.filter(split=split).group_by("concept").len()
        rows = rows.sort(["len", "concept"], descending=[True, False])
        named = [f"{concept} ({count:,})" for concept, count in rows.iter_rows()]
        if len(named) > MOST_CLASSES + FEWEST_CLASSES:
            named = [*named[:MOST_CLASSES], "…", *named[-FEWEST_CLASSES:]]
        middle = rows["len"][rows.height // 2]
        return ", ".join(named) + (f"; median {middle:,}" if len(named) < rows.height else "")

    def _of_sizes(self) -> Iterator[str]:
        width, height, each = (_figures(self.sights[name]) for name in ("width", "height", "bytes"))
        if width is not None and height is not None:
            yield (
                f"sizes{self._part}: width {_range(width)}, height {_range(height)} pixels "
                "(least / median / most)"
            )
        if each is not None:
            total, is_estimated = self.bytes
            about = "about " if is_estimated else ""
            yield f"files: {about}{byte_size(total)}, each {' / '.join(map(byte_size, each))}"

    @property
    def bytes(self) -> tuple[int, bool]:
        """Of all encoded images, and whether that is worked out from those looked at."""
        if self.found.bytes is not None:
            return self.found.bytes, False
        looked = self.sights["bytes"].drop_nulls().to_list()
        count = self.found.scan.height
        return sum(looked) * count // max(1, len(looked)), self.sights.height < count

    def _of_captions(self) -> Iterator[str]:
        captions = self.found.scan["captions"]
        texts = captions.explode(empty_as_null=False).drop_nulls()
        if texts.is_empty():
            return
        several = captions.list.len().to_list()
        words = _figures(texts.str.count_matches(r"\S+"))
        assert words is not None
        each = "one" if max(several) == 1 else f"up to {max(several)}"
        yield (
            f"captions: {sum(map(bool, several)):,} of {len(captions):,} images have {each}, of "
            f"{_range(words)} words"
        )

    @property
    def _part(self) -> str:
        is_part = self.sights.height < self.found.scan.height
        return f" of {self.sights.height:,} looked at" if is_part else ""

    def _of_odd(self) -> Iterator[str]:
        for kind, (one, several) in ODD.items():
            keys = self.odd(kind)
            if keys:
                said = one if len(keys) == 1 else several
                if kind == "transparent":
                    said += f", shown on {self.background} (`background` sets a colour)"
                yield f"{counted(len(keys), 'image')}{self._part} {said}: {shortlist(keys)}"
        if (unreadable := self.unreadable).height:
            key, reason = unreadable.select("key", "reason").row(0)
            yield (
                f"{counted(unreadable.height, 'image')}{self._part} cannot be decoded and will be "
                f"left out, such as {key} ({reason})"
            )
        same = self.same.with_columns(count=pl.col("key").list.len())
        if same.height:
            across = {
                "as one in the other split": same.filter(pl.col("splits") > 1)["count"].sum(),
                "as one of another class": same.filter(pl.col("classes") > 1)["count"].sum(),
            }
            of_them = "".join(
                f", {count:,} of them {said}" for said, count in across.items() if count
            )
            yield (
                f"{same['count'].sum():,} images{self._part} have the same bytes as another"
                f"{of_them}, such as {shortlist(same['key'][0].to_list())}"
            )

    def as_data(self) -> dict[str, Any]:
        """Everything, as JSON data; of what has a range, the least, the median and the most."""
        scan, sights = self.found.scan, self.sights
        by_class = scan.group_by("split", "concept").len().sort("concept")
        words = scan["captions"].explode(empty_as_null=False).drop_nulls().str.count_matches(r"\S+")
        return {
            "images": scan.height,
            "looked_at": sights.height,
            "bytes": self.bytes[0],
            "classes": {
                split: dict(by_class.filter(split=split).select("concept", "len").iter_rows())
                for split in SPLITS
            },
            **{f"{name}_range": _figures(sights[name]) for name in ("width", "height", "bytes")},
            "captioned": int((scan["captions"].list.len() > 0).sum()),
            "caption_words_range": _figures(words),
            **{kind: len(self.odd(kind)) for kind in ODD},
            "unreadable": self.unreadable.height,
            "unusable": int(self.found.unusable["samples"].sum()),
            "same": self.same["key"].to_list(),
        }


def survey(
    source: Source,
    decoding: Decoding,
    *,
    most: int,
    seconds: float | None = None,
    workers: int = 1,
    progress: Progress = no_progress,
) -> Survey:
    """Look at up to `most` images, for about so many `seconds` if they are given, by `workers`
    processes, whose start takes seconds too.

    Raises `InputError` and `DataError` as the source does.
    """
    found = listing(source)
    every = max(1, -(-found.scan.height // most))
    # In any order but the folder's: where time runs out, what was seen is still spread.
    sample = found.scan.gather_every(every).sample(fraction=1.0, shuffle=True, seed=0)
    started = time.monotonic()
    rows: list[tuple[Any, ...]] = []
    looking = Looking(source, decoding)
    references = sample["reference"].to_list()
    with closing(read_in_order(looking, references, workers)) as images:
        for row in images:
            rows.append(row)
            progress("images", len(rows), sample.height)
            if seconds is not None and time.monotonic() - started > seconds:
                break
    sights = pl.DataFrame(rows, schema=SIGHTS, orient="row")
    told = sample.select("split", "key", "concept").head(len(rows))
    sights = pl.concat([told, sights], how="horizontal").sort("split", "key")
    background = "white" if decoding.background == WHITE else decoding.background
    return Survey(found, sights, background)


def counted_classes(count: int) -> str:
    """`1 class`, `1,000 classes`."""
    return f"{count:,} class{'' if count == 1 else 'es'}"


def _figures(values: pl.Series) -> tuple[int, int, int] | None:
    """The least, the median and the most of whole numbers; None without any."""
    known = values.drop_nulls().sort().to_list()
    return (known[0], known[len(known) // 2], known[-1]) if known else None


def _range(figures: tuple[int, int, int]) -> str:
    return " / ".join(f"{figure:,}" for figure in figures)
