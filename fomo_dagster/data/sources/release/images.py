"""A dataset of the benchmark from a local copy of its release: a tar or an extracted folder, with
the info files and the class list next to it.

A sample's key is its image's path in the dataset's folder, the same for the full-size image and for
its resized copy. Its concept is the class that its number (`target`) names. Images, samples and
classes are compared with the registry.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import polars as pl

from fomo_dagster.data.benchmark.info_files import INFO, read_info
from fomo_dagster.data.benchmark.registry import BenchmarkDataset
from fomo_dagster.data.benchmark.release import (
    IMAGES_VARIABLE,
    RESIZED,
    Release,
    resized_folder,
)
from fomo_dagster.data.samples import SCAN
from fomo_dagster.data.sources.files import (
    LARGEST_IMAGE,
    DigestCache,
    OnDisk,
    read_reference,
    reference_of,
    shortlist,
)
from fomo_dagster.data.sources.release.tars import LOCATED, TarMembers, read_member
from fomo_dagster.data.sources.source import Inspection, as_scan
from fomo_dagster.data.sources.table_cache import keep, recall, stamp
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.store.digests import digest_of

INFO_VERSION = 2  # raised when an info file would be read otherwise
READ = {name: LOCATED[name] for name in ("digest", "reference")}
IN_TAR, IN_FOLDER = "tar", "folder"  # first word of a reference


class Images(Protocol):
    """Where a dataset's images lie; names start with the dataset's folder."""

    path: Path

    def holds_folder(self, folder: str) -> bool:
        """Whether any image lies in `folder`."""

    def locate(self, names: Sequence[str], *, digested: bool = True) -> pl.DataFrame:
        """Columns of `LOCATED`, a row for each of `names`, in order; see `TarMembers.locate`."""


class ExtractedFolder:
    """What a tar held, extracted in the folder `path`."""

    def __init__(self, path: Path, cache: DigestCache) -> None:
        self.path = path
        self.cache = cache

    def holds_folder(self, folder: str) -> bool:
        return (self.path / folder).is_dir()

    def locate(self, names: Sequence[str], *, digested: bool = True) -> pl.DataFrame:
        on_disk = OnDisk()
        found_at = {name: on_disk.path(str(self.path / name)) for name in names}
        there = {name: file for name, file in found_at.items() if os.path.isfile(file)}
        files = list(there.values())
        read: dict[str, list[str] | list[None]] = {
            "digest": [None] * len(files), "reference": [None] * len(files)
        }  # fmt: skip
        if digested:
            digests = self.cache.digests(files, f"the folder {self.path}", LARGEST_IMAGE)
            read = {"digest": digests, "reference": list(map(reference_of, files, digests))}
        found = pl.DataFrame(
            {"name": list(there), "there": [True] * len(files), **read},
            schema={"name": pl.String(), "there": pl.Boolean(), **READ},
        )
        problem = pl.when(pl.col("there").is_null()).then(pl.lit("not there"))
        return (
            pl.DataFrame({"name": names}, schema={"name": pl.String()})
            .join(found, on="name", how="left", maintain_order="left")
            .with_columns(problem=problem)
            .select(*LOCATED)
        )


@dataclass
class _Remarks:
    """What is to be said of a dataset: `differences` are refused unless they are allowed."""

    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class ReleaseImages:
    """The samples of the benchmark's `dataset`, which the project calls `name`.

    resized: read the release's copies at 224 pixels where it has them. allow_incomplete: leave out
    what is missing and say so, instead of refusing. cache: a folder for what was worked out.
    """

    def __init__(
        self,
        name: str,
        dataset: BenchmarkDataset,
        release: Release,
        *,
        resized: bool,
        allow_incomplete: bool,
        cache: Path,
    ) -> None:
        self.name = name
        self.dataset = dataset
        self.release = release
        self.resized = resized
        self.allow_incomplete = allow_incomplete
        self.cache = cache

    def scan(self) -> pl.DataFrame:
        """See `Source.scan`, and `inspect`."""
        return self.inspect().scan

    def read(self, reference: str) -> bytes:
        """See `Source.read`."""
        where, _, rest = reference.partition(" ")
        return {IN_TAR: read_member, IN_FOLDER: read_reference}[where](rest)

    def inspect(self) -> Inspection:
        """The samples, the class list, and what differs from the registry.

        Raises `InputError` if the images are not there at all, and `DataError` where something
        differs and `allow_incomplete` is not set, or a file is not of the release's form.
        """
        samples, classes, remarks = self._look(digested=True)
        self._refuse(samples, remarks.differences)
        said = [f"is not as in the benchmark: {text}" for text in remarks.differences]
        return Inspection(
            as_scan(samples),
            classes or (),
            tuple(f"dataset {self.name!r} {text}" for text in (*said, *remarks.notes)),
        )

    def differences(self) -> tuple[str, ...]:
        """What is not as in the benchmark: images by their names, samples and classes by number.

        No image is read. Raises `InputError` if the images are not there at all, and `DataError`
        where a file is not of the release's form.
        """
        _, _, remarks = self._look(digested=False)
        return tuple(remarks.differences)

    def _look(self, *, digested: bool) -> tuple[pl.DataFrame, tuple[str, ...] | None, _Remarks]:
        """Columns of `SCAN`, the classes, and what is to be said of them."""
        where, images = self._images()
        remarks = _Remarks()
        classes = self.release.class_names(self.dataset)
        if classes is not None and len(classes) != self.dataset.classes:
            remarks.differences.append(
                f"{len(classes)} classes are listed instead of {self.dataset.classes}"
            )
        splits = [
            self._samples(split, images, classes, remarks, digested=digested)
            for split, count in self._expected.items()
            if count
        ]
        samples = pl.concat(splits).with_columns(
            reference=pl.format("{} {}", pl.lit(where), "reference")
        )
        return samples, classes, remarks

    @property
    def _expected(self) -> dict[str, int]:
        """Split → its samples in the benchmark."""
        return {"train": self.dataset.train, "test": self.dataset.test}

    def _refuse(self, samples: pl.DataFrame, differences: Sequence[str]) -> None:
        if differences and (samples.is_empty() or not self.allow_incomplete):
            raise DataError(
                f"dataset {self.name!r} is not as in the benchmark ({self.dataset.folder}): "
                f"{'; '.join(differences)}. Get what is missing"
                + ("" if samples.is_empty() else ", or declare `allow_incomplete: true`")
            )

    def _images(self) -> tuple[str, Images]:
        """Those in the tar where there is one, else those in the folder."""
        archive, folder = self.release.archive(self.dataset), self.release.folder(self.dataset)
        if archive.is_file():
            return IN_TAR, TarMembers(archive, self._kept(archive))
        if folder.is_dir():
            return IN_FOLDER, ExtractedFolder(folder.parent, DigestCache(self._kept(folder)))
        raise InputError(
            f"dataset {self.name!r}: there is no {archive}, and no folder {folder.name} beside it; "
            f"get it (`fomo fetch {self.dataset.name}`; `fomo datasets` lists all there is), or "
            f"say where the images are ({IMAGES_VARIABLE}, or `images` in its source)"
        )

    def _samples(
        self,
        split: str,
        images: Images,
        classes: Sequence[str] | None,
        remarks: _Remarks,
        *,
        digested: bool,
    ) -> pl.DataFrame:
        """Columns of `SCAN`: the images of a split that are there."""
        folder = self.dataset.folder
        copies = resized_folder(self.dataset, split)
        wanted = self.resized and self.dataset.resized
        resized = (
            wanted
            and self.release.info_file(self.dataset, split, resized=True).is_file()
            and images.holds_folder(f"{folder}/{copies}")
        )
        if wanted and not resized:
            remarks.notes.append(
                f"has no copies at {RESIZED} pixels of its {split} images here: the images that "
                "they were made from are read"
            )
        info = self._info(split, resized, remarks)
        concepts = self._concepts(split, info, classes, remarks)
        prefix = f"{folder}/{copies}/" if resized else f"{folder}/"
        found = images.locate((prefix + info["key"]).to_list(), digested=digested)
        samples = pl.concat([info, found], how="horizontal").with_columns(
            concepts, split=pl.lit(split)
        )
        missing = samples.filter(pl.col("problem").is_not_null())
        if missing.height:
            named = missing.select(pl.format("{} ({})", "key", "problem")).to_series().to_list()
            remarks.differences.append(
                f"{missing.height} of {info.height} {split} images cannot be read from "
                f"{images.path}: {shortlist(named)}"
            )
        return samples.filter(pl.col("problem").is_null()).select(*SCAN)

    def _info(self, split: str, resized: bool, remarks: _Remarks) -> pl.DataFrame:
        """Columns of `INFO`; where a row of it has no caption, with those of its other variant.

        For some datasets only the info file of the resized copies has captions, of the same images.
        """
        expected = self._expected[split]
        path, other = (
            self.release.info_file(self.dataset, split, resized=variant)
            for variant in (resized, not resized)
        )
        if not path.is_file():
            remarks.differences.append(f"there is no {path.name} for its {expected} {split} images")
            return pl.DataFrame(schema=INFO)
        info = self._read_info(path, split)
        if info.height != expected:
            remarks.differences.append(
                f"{path.name} lists {info.height} {split} images instead of {expected}"
            )
        wordless = pl.col("captions").list.len() == 0
        if not other.is_file() or not info.select(wordless.any()).item():
            return info
        more = self._read_info(other, split).select("key", others="captions")
        return (
            info.join(more, on="key", how="left", maintain_order="left")
            .with_columns(
                captions=pl.when(wordless & pl.col("others").is_not_null())
                .then("others")
                .otherwise("captions")
            )
            .select(*INFO)
        )

    def _read_info(self, path: Path, split: str) -> pl.DataFrame:
        state = stamp(path)
        key = state and digest_of([INFO_VERSION, state])
        info = recall(self._kept(path), key, INFO)
        if info is None:
            info = read_info(path, resized_folder(self.dataset, split))
            keep(self._kept(path), key, info)
        return info

    def _concepts(
        self,
        split: str,
        info: pl.DataFrame,
        classes: Sequence[str] | None,
        remarks: _Remarks,
    ) -> pl.Series:
        """The class of each row: that of its number, as the benchmark counts it; the dataset's name
        where there are no classes."""
        if classes is None:
            return pl.Series("concept", [self.name] * info.height, pl.String)
        outside = info.filter(pl.col("target") >= len(classes))
        if outside.height:
            raise DataError(
                f"dataset {self.name!r}: the {split} image {outside['key'][0]!r} is of class "
                f"{outside['target'][0]}, and there are {len(classes)} (counted from 0)"
            )
        concepts = pl.Series("concept", classes, pl.String).gather(info["target"])
        others = info.filter(info["classname"] != concepts)
        if others.height:
            names = others["classname"].unique().sort().to_list()
            remarks.notes.append(
                f"has {others.height} {split} images under class names that are not those of their "
                f"numbers in the class list, which count: {shortlist(names)}"
            )
        return concepts

    def _kept(self, path: Path) -> Path:
        return self.cache / f"{path.stem}-{digest_of(str(path))[:8]}.parquet"
