"""A dataset of local tars, indexed in place: one pass over them, and no copy of an image.

The content of a tar is kept by its file's status, so an unchanged tar is not read again. An index
knows tars by name and looks up where they are whenever one is used. A tar with other bytes than
when it was indexed is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from fomo_dagster.data.decoding import DEFAULT, Decoding
from fomo_dagster.data.index import Index
from fomo_dagster.data.samples import INDEX
from fomo_dagster.data.sources.files import shortlist
from fomo_dagster.data.sources.splits import SplitRule, held_out
from fomo_dagster.data.sources.webdataset.listing import (
    find_shards,
    list_shards,
    said_of_others,
)
from fomo_dagster.data.sources.webdataset.members import (
    BROKEN,
    ODD,
    PLACED,
    RULES,
    TarScan,
    Unused,
    scan_tar,
)
from fomo_dagster.data.sources.webdataset.shard_splits import ShardSplits, split_shards
from fomo_dagster.errors import DataError
from fomo_dagster.parquet import read_parquet
from fomo_dagster.progress import Progress, no_progress
from fomo_dagster.store.digests import DIGEST_LENGTH, digest_of
from fomo_dagster.store.files import replacing, skipped_where_refused

SETTLE_SECONDS = 2.0  # the coarsest clock tick of a file system: see `sources.files.DigestCache`
TARS_AT_ONCE = 4  # while one is hashed, another is read and a third one's headers are parsed
SUMMARY = "fomo_tar"  # the key of a Parquet file's metadata
REASONS_NAMED = 5
LOST: dict[str, pl.DataType] = {
    "shard": pl.String(),
    "split": pl.String(),
    "key": pl.String(),
    "digest": pl.String(),
    "samples": pl.Int64(),  # that it stands for
    "reason": pl.String(),
}


Summary = tuple[str, int, int, tuple[Unused, ...]]
"""Of a tar: the digest of its content, samples, broken ones as far as they are known, and unused
members."""


class Status(NamedTuple):
    """What changes with a file's content."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int


class Place(NamedTuple):
    """Where a tar lies, and its status when its content was known."""

    path: str
    status: Status


class IndexedTar(NamedTuple):
    """What is known of a tar without reading it again."""

    name: str
    place: Place
    digest: str  # of all that the index holds of it
    samples: int
    broken: int
    unused: tuple[Unused, ...] = ()


class TarIndex(NamedTuple):
    """All that a dataset's tars hold: samples (INDEX, `shard` being the tar's name), what is broken
    (LOST), and which images are odd (`shards.SEEN`)."""

    samples: pl.DataFrame
    broken: pl.DataFrame
    odd: pl.DataFrame


class IndexedTars:
    """The tars of a dataset. What is known of each is kept in the folder `cache`.

    `shards`: as `find_shards` takes them. `images`: extensions. All samples are of one concept,
    named `concept`. `split_rule`: its names are patterns, as `split_shards` takes them.
    """

    def __init__(
        self,
        shards: Sequence[str],
        base: Path,
        images: Sequence[str],
        *,
        concept: str,
        split_rule: SplitRule,
        cache: Path,
        decoding: Decoding = DEFAULT,
    ) -> None:
        self.shards, self.base, self.images = shards, base, images
        self.concept, self.split_rule = concept, split_rule
        self.decoding = decoding
        self.cache = cache
        self._fresh: dict[Place, TarScan] = {}  # of tars that are too new for the cache

    def tars(self, progress: Progress = no_progress) -> list[IndexedTar]:
        """Every tar, in order of names; those that are not known as they are now are read.

        Raises `DataError` if one is missing, cannot be read, or changes meanwhile.
        """
        files = list_shards(self.shards, self.base)
        split_shards(
            [file.name for file in files], self.split_rule.names, self._title
        )  # refused first
        found = []
        with ThreadPoolExecutor(TARS_AT_ONCE) as threads:
            for tar in threads.map(lambda file: self._tar(file.name, file.url), files):
                found.append(tar)
                progress("tars", len(found), len(files))
        return found

    @property
    def _title(self) -> str:
        return f"the dataset {self.concept!r}"

    def remarks(self, tars: Sequence[IndexedTar]) -> tuple[str, ...]:
        """Sentences about what of the tars is not used, and how their names were taken."""
        splits = split_shards([tar.name for tar in tars], self.split_rule.names, self._title)
        notes = (*splits.notes, *said_of_others(self.shards, self.base))
        counts: Counter[str] = Counter()
        examples: dict[str, str] = {}
        for tar in tars:
            for unused in tar.unused:
                counts[unused.reason] += unused.members
                examples.setdefault(unused.reason, f"{unused.example} in {tar.name}")
        if not counts:
            return notes
        said = [
            f"{count:,} × {reason} ({examples[reason]})"
            for reason, count in counts.most_common(REASONS_NAMED)
        ]
        return (
            *notes,
            f"{counts.total():,} members and fields of the tars of {self._title} are not used: "
            f"{'; '.join(said)}",
        )

    def check_usable(self, tars: Sequence[IndexedTar]) -> None:
        """Raise `DataError`, with the reasons, if no sample of any tar can be used."""
        if any(tar.samples for tar in tars):
            return
        why = reasons(self.index(tars).broken)
        why += [f"{u.members:,} × {u.reason} ({u.example})" for tar in tars for u in tar.unused]
        raise DataError(
            f"{self._title} has no sample that can be used in its tars "
            f"({shortlist([tar.name for tar in tars])}): "
            f"{'; '.join(why[:REASONS_NAMED]) or 'they are empty'}. A sample is an image with a "
            ".txt, or a .json that has a caption, by one name"
        )

    def index(self, tars: Sequence[IndexedTar]) -> TarIndex:
        """All that the tars hold, and the shards that are missing as what is broken.

        A key that several tars have is preceded by the tar's name; if that is a key, too, all are.
        What was lost with a shard counts as many samples as it had: what img2dataset noted beside
        it, or else, as a bound, those of the largest of the others.
        """
        scans = [self._scan(tar.place) for tar in tars]
        splits = split_shards([tar.name for tar in tars], self.split_rule.names, self._title)
        samples = pl.concat(
            scan.samples.with_columns(shard=pl.lit(tar.name), split=pl.lit(splits.of[tar.name]))
            for tar, scan in zip(tars, scans, strict=True)
            if tar.name in splits.of
        )
        samples = _told_apart(samples).with_columns(concept=pl.lit(self.concept))
        if self.split_rule.test_share > 0 and not splits.has_test:
            samples = samples.with_columns(held_out(samples, self.split_rule.test_share))
        odd = pl.concat(
            scan.odd.with_columns(shard=pl.lit(tar.name))
            for tar, scan in zip(tars, scans, strict=True)
        ).join(samples.select("split", "key", "shard", "offset"), on=["shard", "offset"])
        flags = [name for name in ODD if name not in ("offset", "source")]
        return TarIndex(
            samples.select(*INDEX).sort("split", "key"),
            self._broken(tars, scans, splits),
            odd.select("split", "key", pl.col("source").alias("digest"), *flags).sort(
                "split", "key"
            ),
        )

    def _broken(
        self, tars: Sequence[IndexedTar], scans: Sequence[TarScan], splits: ShardSplits
    ) -> pl.DataFrame:
        largest = max(tar.samples for tar in tars)
        frames = [
            scan.broken.with_columns(
                pl.col("samples").fill_null(
                    max(1, _noted(tar.place.path, largest) - tar.samples - tar.broken)
                ),
                shard=pl.lit(tar.name),
                split=pl.lit(splits.of[tar.name]),
            ).select(*LOST)
            for tar, scan in zip(tars, scans, strict=True)
            if tar.name in splits.of
        ]
        missing = [
            (Path(path).name, "train", "", "", max(1, _noted(path, largest)), "it is not there")
            for path in find_shards(self.shards, self.base).missing
        ]
        return pl.concat([*frames, pl.DataFrame(missing, schema=LOST, orient="row")])

    def places(
        self, digests: Mapping[str, str], progress: Progress = no_progress
    ) -> dict[str, Place]:
        """Where the tars of an index lie: those names whose content is that of `digests`.

        Raises `DataError` if a tar is gone, or holds other samples now.
        """
        present = {tar.name: tar for tar in self.tars(progress)}
        gone = [name for name in digests if name not in present]
        if gone:
            raise DataError(
                f"{len(gone)} of {len(digests)} tars are not where the dataset's shards are "
                f"declared: {shortlist(gone)}; put them back, or materialise its shards again"
            )
        other = [name for name, digest in digests.items() if present[name].digest != digest]
        if other:
            raise DataError(
                f"{len(other)} of {len(digests)} tars changed after they were indexed: "
                f"{shortlist(other)}; materialise the dataset's shards again"
            )
        return {name: present[name].place for name in digests}

    def _tar(self, name: str, path: str) -> IndexedTar:
        place = Place(path, _status(path))
        summary = self._summary(place)
        return IndexedTar(name, place, *summary)

    def _summary(self, place: Place) -> Summary:
        kept = self._kept(place)
        try:
            digest, samples, broken, unused = json.loads(pl.read_parquet_metadata(kept)[SUMMARY])
            return digest, samples, broken, tuple(Unused(*each) for each in unused)
        except (OSError, KeyError, ValueError, TypeError, pl.exceptions.PolarsError):
            pass
        started_ns = time.time_ns()
        scan = scan_tar(Path(place.path), self.images, digests=True, decoding=self.decoding)
        if _status(place.path) != place.status:
            raise DataError(f"{place.path} changed while it was read: run again when it is whole")
        broken = int(scan.broken["samples"].sum())
        summary = (_digest(scan), scan.samples.height, broken, scan.unused)
        settled_ns = started_ns - int(SETTLE_SECONDS * 1e9)
        if max(place.status.modified_ns, place.status.changed_ns) >= settled_ns:
            self._fresh[place] = scan
            return summary
        parts = (scan.samples, scan.broken, scan.odd)
        rows = pl.concat(
            (part.with_columns(part=pl.lit(number)) for number, part in enumerate(parts)),
            how="diagonal",
        )
        self._fresh[place] = scan  # for where it cannot be kept
        with skipped_where_refused():
            with replacing(kept) as temporary:
                rows.write_parquet(temporary, metadata={SUMMARY: json.dumps(summary)})
            for old in self.cache.glob(f"{_path_digest(place)}-*"):
                if old != kept:
                    old.unlink(missing_ok=True)
            del self._fresh[place]
        return summary

    def _scan(self, place: Place) -> TarScan:
        if place in self._fresh:
            return self._fresh[place]
        rows = read_parquet(self._kept(place))
        samples, broken, odd = (
            rows.filter(part=number).select(*schema)
            for number, schema in enumerate((PLACED, BROKEN, ODD))
        )
        return TarScan(samples, broken, odd)

    def _kept(self, place: Place) -> Path:
        about = digest_of([*place.status, *self.images, RULES, self.decoding.as_data()])[:16]
        return self.cache / f"{_path_digest(place)}-{about}.parquet"


def _told_apart(samples: pl.DataFrame) -> pl.DataFrame:
    whole = pl.format("{}/{}", pl.col("shard").str.strip_suffix(".tar"), "key")
    repeats = pl.struct("split", "key").is_duplicated()
    told = samples.with_columns(key=pl.when(repeats).then(whole).otherwise("key"))
    return samples.with_columns(key=whole) if told.select(repeats.any()).item() else told


def reasons(lost: pl.DataFrame) -> list[str]:
    """Why samples of LOST cannot be used, with the first of each, the most frequent first."""
    example = pl.format("{}/{}", "shard", "key").str.strip_suffix("/")
    by_reason = lost.group_by("reason", maintain_order=True).agg(
        pl.col("samples").sum(), example.first().alias("example")
    )
    return [
        f"{example} ({reason})" + (f" and {count - 1:,} more" if count > 1 else "")
        for reason, count, example in by_reason.sort("samples", descending=True).rows()
    ]


def version_of(tars: Sequence[IndexedTar]) -> str:
    """The identity of an index over these tars, wherever they lie."""
    return digest_of({tar.name: tar.digest for tar in tars})


class PlacedIndex(Index):
    """An index over tars that lie elsewhere; a read raises `DataError` where one has changed."""

    is_checked = False

    def __init__(self, folder: Path, places: Mapping[str, Place]) -> None:
        super().__init__(folder)
        self._places = places

    def __reduce__(self) -> tuple[type[Index], tuple[Any, ...]]:
        return PlacedIndex, (self.folder, self._places)

    def path(self, shard: str) -> Path:
        return Path(self._places[shard].path)

    def read(self, shard: str, offset: int, size: int) -> bytes:
        data = super().read(shard, offset, size)
        place = self._places[shard]
        if _status(place.path) != place.status:
            raise DataError(
                f"{place.path} changed after it was indexed: materialise the dataset's shards again"
            )
        return data


def _status(path: str) -> Status:
    try:
        found = os.stat(path)
    except OSError as error:
        raise DataError(f"the tar {path} cannot be read: {error.strerror}") from error
    return Status(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _digest(scan: TarScan) -> str:
    """Of a tar's usable and broken samples, their places in it included."""
    content = hashlib.sha256()
    for frame in (scan.samples, scan.broken):
        content.update(json.dumps(frame.rows(), ensure_ascii=False).encode())
    return content.hexdigest()[:DIGEST_LENGTH]


def _noted(tar: str, otherwise: int) -> int:
    """The samples that img2dataset noted of a tar, which may be gone."""
    try:
        noted = json.loads(Path(f"{tar.removesuffix('.tar')}_stats.json").read_bytes())
        return int(noted["successes"])
    except (OSError, ValueError, KeyError, TypeError):
        return otherwise


def _path_digest(place: Place) -> str:
    return digest_of(place.path)[:16]
