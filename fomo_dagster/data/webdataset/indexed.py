"""A dataset of local tars, indexed in place: one pass over them, and no copy of an image.

What a tar holds is kept by its file's status, so that an unchanged one is not read again. An index
knows tars by name; where they lie is looked up whenever one is used, and one that holds other bytes
than when it was indexed is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from fomo_dagster.data.index import Index
from fomo_dagster.data.samples import INDEX
from fomo_dagster.data.sources.files import shortlist
from fomo_dagster.data.sources.splits import held_out
from fomo_dagster.data.webdataset.listing import list_shards
from fomo_dagster.data.webdataset.members import BROKEN, PLACED, RULES, TarScan, scan_tar
from fomo_dagster.errors import DataError
from fomo_dagster.progress import Progress, silent
from fomo_dagster.store.digests import DIGEST_LENGTH, digest_of
from fomo_dagster.store.files import replacing

SETTLE_SECONDS = 2.0  # the coarsest clock tick of a file system: see `sources.files.DigestCache`
TARS_AT_ONCE = 4  # while one is hashed, another is read and a third one's headers are parsed
SUMMARY = "fomo_tar"  # the key of a Parquet file's metadata


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


class IndexedTars:
    """The tars of a dataset. What is known of each is kept in the folder `cache`.

    `shards`: as `list_shards` takes them. All samples are of one concept, named `concept`.
    """

    def __init__(
        self,
        shards: Sequence[str],
        base: Path,
        images: Sequence[str],
        *,
        concept: str,
        test_share: float,
        cache: Path,
        progress: Progress = silent,
    ) -> None:
        self.shards, self.base, self.images = shards, base, images
        self.concept, self.test_share = concept, test_share
        self.cache = cache
        self.progress = progress
        self._fresh: dict[Place, TarScan] = {}  # of tars that are too new for the cache

    def tars(self) -> list[IndexedTar]:
        """Every tar, in order of names; those that are not known as they are now are read.

        Raises `DataError` where one is missing, cannot be read, or changes meanwhile.
        """
        files = list_shards(self.shards, self.base)
        found = []
        with ThreadPoolExecutor(TARS_AT_ONCE) as threads:
            for tar in threads.map(lambda file: self._tar(file.name, file.url), files):
                found.append(tar)
                self.progress("tars", len(found), len(files))
        return found

    def index(self, tars: Sequence[IndexedTar]) -> tuple[pl.DataFrame, pl.DataFrame]:
        """All samples (INDEX, `shard` being the tar's name) and all that is broken (`shard` and
        BROKEN). A key that several tars have is preceded by the tar's name."""
        scans = [self._scan(tar.place) for tar in tars]
        samples = pl.concat(
            scan.samples.with_columns(shard=pl.lit(tar.name))
            for tar, scan in zip(tars, scans, strict=True)
        )
        broken = pl.concat(
            scan.broken.select(pl.lit(tar.name).alias("shard"), *BROKEN)
            for tar, scan in zip(tars, scans, strict=True)
        )
        stem = pl.col("shard").str.strip_suffix(".tar")
        samples = samples.with_columns(
            concept=pl.lit(self.concept),
            split=pl.lit("train"),
            key=pl.when(pl.col("key").is_duplicated())
            .then(pl.format("{}/{}", stem, "key"))
            .otherwise("key"),
        )
        if self.test_share > 0:
            samples = samples.with_columns(held_out(samples, self.test_share))
        return samples.select(*INDEX).sort("split", "key"), broken

    def places(self, digests: Mapping[str, str]) -> dict[str, Place]:
        """Where the tars of an index lie: those names whose content is that of `digests`.

        Raises `DataError` where a tar is gone, or holds other samples now.
        """
        present = {tar.name: tar for tar in self.tars()}
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

    def _summary(self, place: Place) -> tuple[str, int, int]:
        kept = self._kept(place)
        try:
            digest, samples, broken = json.loads(pl.read_parquet_metadata(kept)[SUMMARY])
            return digest, samples, broken
        except (OSError, KeyError, ValueError, pl.exceptions.PolarsError):
            pass
        started_ns = time.time_ns()
        scan = scan_tar(Path(place.path), self.images, digests=True)
        if _status(place.path) != place.status:
            raise DataError(f"{place.path} changed while it was read: run again when it is whole")
        summary = (_digest(scan), scan.samples.height, scan.broken.height)
        settled_ns = started_ns - int(SETTLE_SECONDS * 1e9)
        if max(place.status.modified_ns, place.status.changed_ns) >= settled_ns:
            self._fresh[place] = scan
            return summary
        for old in self.cache.glob(f"{_path_digest(place)}-*"):
            old.unlink(missing_ok=True)
        rows = pl.concat([scan.samples, scan.broken], how="diagonal")
        with replacing(kept) as temporary:
            rows.write_parquet(temporary, metadata={SUMMARY: json.dumps(summary)})
        return summary

    def _scan(self, place: Place) -> TarScan:
        if place in self._fresh:
            return self._fresh[place]
        rows = pl.read_parquet(self._kept(place))
        is_broken = pl.col("reason").is_not_null()
        return TarScan(
            rows.filter(~is_broken).select(*PLACED), rows.filter(is_broken).select(*BROKEN)
        )

    def _kept(self, place: Place) -> Path:
        about = digest_of([*place.status, *self.images, RULES])[:16]
        return self.cache / f"{_path_digest(place)}-{about}.parquet"


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
    for frame in scan:
        content.update(json.dumps(frame.rows(), ensure_ascii=False).encode())
    return content.hexdigest()[:DIGEST_LENGTH]


def _path_digest(place: Place) -> str:
    return digest_of(place.path)[:16]
