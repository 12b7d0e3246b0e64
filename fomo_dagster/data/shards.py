"""A dataset as WebDataset tars with an index. Every image is decoded once to check that it is
whole.

`train-000000.tar`, `test-000000.tar`, … hold `<name>.<extension>` (the image) and `<name>.json`
(concept, captions, key, digest) per sample. `index.parquet` says where each is (INDEX),
`quarantine.parquet` what was left out and why, `seen.parquet` which images are odd. The same
samples give the same bytes for any number of worker processes. The store makes the folder durable
and visible at once.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

from fomo_dagster.data.decoding import DEFAULT, Decoding
from fomo_dagster.data.images import Seen
from fomo_dagster.data.index import write_index
from fomo_dagster.data.reading import IMAGES_PER_TASK, Reading, Stored, read_in_order
from fomo_dagster.data.samples import INDEX, QUARANTINE, SAMPLES, SPLITS
from fomo_dagster.data.sources.files import shortlist
from fomo_dagster.data.sources.source import Inspection
from fomo_dagster.errors import DataError
from fomo_dagster.progress import Progress, no_progress

QUARANTINE_FILE = "quarantine.parquet"
SEEN_FILE = "seen.parquet"
SEEN: dict[str, pl.DataType] = {
    "split": pl.String(),
    "key": pl.String(),
    "digest": pl.String(),  # the source's
    **dict.fromkeys(Seen._fields, pl.Boolean()),
}  # of the images of which anything is true


@dataclass(frozen=True)
class ShardReport:
    """What was written."""

    samples: dict[str, int]  # by split
    concepts: int
    quarantined: int
    bytes: int  # of all shards


def stored_samples(
    scan: pl.DataFrame,
    resize: int | None,
    decoding: Decoding = DEFAULT,
    seen: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """SAMPLES as stored from those scanned (SCAN): the digest names the image as it is shown.

    seen: what is known of the images (SEEN). Nothing is read: unreadable images are still among
    them.
    """
    if resize is None and (seen is None or seen.is_empty()):
        return scan.select(*SAMPLES)
    known = {} if seen is None else {row[2]: Seen(*row[3:]) for row in seen.select(*SEEN).rows()}
    digests = [
        known.get(digest, Seen()).digest(digest, decoding, resize) for digest in scan["digest"]
    ]
    return scan.select(*SAMPLES).with_columns(pl.Series("digest", digests, pl.String))


def write_shards(
    found: Inspection,
    reading: Reading,
    folder: Path,
    *,
    unreadable_limit: float,
    workers: int = 1,
    progress: Progress = no_progress,
    samples_per_shard: int = 1024,
) -> ShardReport:
    """Write the shards of the samples that a source was found to have into `folder`.

    `workers` processes read and decode; 1 is this process alone. Images that cannot be read are
    left out and listed in the quarantine, with what the source left out itself. Raises `DataError`
    if they are more than the share `unreadable_limit` of all, where a concept loses all its
    training samples to them, and where the source no longer holds what was scanned.
    """
    if found.scan.is_empty() and found.unusable.is_empty():
        raise DataError("the dataset has no samples: check the path of its source")
    folder.mkdir(parents=True, exist_ok=True)
    scan = found.scan.sort("split", "key")
    places: list[tuple[int, str, str, int, int]] = []  # row, digest, shard, offset, size
    reasons: list[tuple[int, int, str]] = []  # row, samples, reason
    seen: list[tuple[Any, ...]] = []  # row, Seen
    images = read_in_order(reading, scan["reference"].to_list(), workers)
    with closing(images), ShardWriter(folder, samples_per_shard) as shards:
        for row, (sample, image) in enumerate(
            zip(scan.select(*SAMPLES).iter_rows(named=True), images, strict=True)
        ):
            if any(image.seen):
                seen.append((row, *image.seen))
            if image.reason is None:
                sample["digest"] = image.seen.digest(
                    sample["digest"], reading.decoding, reading.resize
                )
                places.append((row, sample["digest"], *shards.write(sample, image)))
            else:
                reasons.append((row, 1, image.reason))
            if (row + 1) % IMAGES_PER_TASK == 0 or row + 1 == scan.height:
                detail = f"{len(reasons)} unreadable" if reasons else ""
                progress("images", row + 1, scan.height, detail)
    index = _with(scan.drop("digest"), places, INDEX)
    quarantine = pl.concat([found.unusable, _with(scan, reasons, QUARANTINE)])
    write_index(index, folder, reading.decoding)
    _with(scan, seen, SEEN).write_parquet(folder / SEEN_FILE)
    quarantine.write_parquet(folder / QUARANTINE_FILE)
    _check_quarantine(quarantine, scan, index, unreadable_limit)
    return ShardReport(
        samples={split: index.filter(pl.col("split") == split).height for split in SPLITS},
        concepts=index["concept"].n_unique(),
        quarantined=quarantine.height,
        bytes=sum(path.stat().st_size for path in folder.glob("*.tar")),
    )


def _with(
    table: pl.DataFrame, rows: list[tuple[Any, ...]], schema: Mapping[str, pl.DataType]
) -> pl.DataFrame:
    """The rows of `table` that `rows` number, with what `rows` add to make up `schema`."""
    added = {name: dtype for name, dtype in schema.items() if name not in table.columns}
    numbered = table.with_row_index("row")
    found = pl.DataFrame(rows, schema={"row": numbered["row"].dtype, **added}, orient="row")
    return numbered.join(found, on="row", how="inner", maintain_order="left").select(*schema)


def _check_quarantine(
    quarantine: pl.DataFrame, scan: pl.DataFrame, index: pl.DataFrame, limit: float
) -> None:
    named = [f"{key} ({reason})" for key, reason in quarantine.select("key", "reason").iter_rows()]
    total = index.height + quarantine.height
    if len(named) / total > limit:
        raise DataError(
            f"{len(named)} of {total} images ({len(named) / total:.2%}) cannot be read,"
            f" above unreadable_limit = {limit:.2%}: {shortlist(named)}. Repair or remove them, or "
            "raise the dataset's unreadable_limit"
        )
    in_training = pl.col("split") == "train"
    left = index.filter(in_training)["concept"].unique()
    lost = scan.filter(in_training, ~pl.col("concept").is_in(left.implode()))["concept"].unique()
    if len(lost):
        raise DataError(
            f"{len(lost)} concepts have no training image that can be read: "
            f"{shortlist(lost.sort().to_list())}; unreadable: {shortlist(named)}. Repair these "
            "images, or remove the concepts"
        )


class ShardWriter:
    """Writes samples, sorted by split, into consecutive tars of `samples_per_shard` each."""

    def __init__(self, folder: Path, samples_per_shard: int) -> None:
        self._folder = folder
        self._samples_per_shard = samples_per_shard
        self._written = dict.fromkeys(SPLITS, 0)
        self._shard: Shard | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shard is not None:
            self._shard.close()

    def write(self, sample: Mapping[str, Any], image: Stored) -> tuple[str, int, int]:
        """Add one sample (SAMPLES); returns the shard's name, and the image's offset and size."""
        split = sample["split"]
        number, place = divmod(self._written[split], self._samples_per_shard)
        if self._shard is None or place == 0:
            if self._shard is not None:
                self._shard.close()
            self._shard = Shard(self._folder / f"{split}-{number:06d}.tar")
        self._written[split] += 1
        name = quote(sample["key"], safe="").replace(".", "%2E")  # readers cut names at a dot
        offset = self._shard.add(f"{name}.{image.extension}", image.data)
        about = {field: sample[field] for field in ("concept", "captions", "key", "digest")}
        self._shard.add(f"{name}.json", json.dumps(about, ensure_ascii=False).encode())
        return self._shard.path.name, offset, len(image.data)


class Shard:
    """One uncompressed tar whose bytes depend on its members' names and data alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name: str, data: bytes) -> int:
        """Append a member; returns the offset of its data in the file."""
        member = tarfile.TarInfo(name)
        member.size = len(data)
        member.mode = 0o444
        self._tar.addfile(member, io.BytesIO(data))
        blocks = -(-len(data) // tarfile.BLOCKSIZE)  # the data is padded to whole blocks
        return self._file.tell() - blocks * tarfile.BLOCKSIZE

    def close(self) -> None:
        """Write the end of the archive."""
        self._tar.close()
        self._file.close()
