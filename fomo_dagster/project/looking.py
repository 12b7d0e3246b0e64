"""A first look at a person's images: the dataset that they make, and what is odd about them.

The dataset's own source inspects the folder or table, and its images are decoded as for its shards.
Images in tars, on Hugging Face's hub and in torchvision's sets are not covered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.reading import Reading, read_in_order
from fomo_dagster.data.sources.files import shortlist
from fomo_dagster.data.sources.rows import SUFFIXES as TABLES
from fomo_dagster.data.sources.source import Inspection, inspect, twins_said
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.progress import Progress
from fomo_dagster.units import counted

MOST_DECODED = 5000  # of larger datasets, as many images are looked at, evenly spread
MOST_CLASSES_NAMED = 5
ODD = {
    "transparent": ("has", "have", "transparency, shown on white (`background` sets a colour)"),
    "flat": ("is", "are", "of one colour alone"),
    "turned": ("has", "have", "an orientation tag, which is ignored (`upright: true` heeds it)"),
    "rescaled": ("declares", "declare", "no white; it is found from the values"),
}  # what `Seen` tells of one image and of several, and how it is said
_UNSAFE = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True)
class Looked:
    """A dataset that a person's images make, and what a look at them found.

    declaration: as it stands in the dataset's file. decoded: how many images were looked at.
    unreadable: key → why it cannot be decoded. odd: as in `ODD` → the keys of the images.
    """

    name: str
    path: Path
    declaration: Mapping[str, Any]
    found: Inspection
    decoded: int
    unreadable: Mapping[str, str]
    odd: Mapping[str, tuple[str, ...]]

    @property
    def classes(self) -> list[str]:
        return sorted({*self.found.scan["concept"].unique(), *self.found.classes})

    @property
    def counts(self) -> dict[str, int]:
        """Split → images."""
        return dict(self.found.scan.group_by("split").len().iter_rows())

    def sentences(self) -> Iterator[str]:
        """What a person should know of their images, the main thing first."""
        counts, scan = self.counts, self.found.scan
        yield (
            f"{scan.height:,} images of {len(self.classes):,} classes: "
            f"{counts.get('train', 0):,} to train on, {counts.get('test', 0):,} to test on"
        )
        sizes = scan.group_by("concept").len().sort(["len", "concept"], descending=[True, False])
        named = [f"{concept} ({count:,})" for concept, count in sizes.iter_rows()]
        if len(named) > MOST_CLASSES_NAMED:
            named = [*named[: MOST_CLASSES_NAMED - 1], "…", named[-1]]
        yield f"classes by size: {', '.join(named)}"
        untested = sorted({*self.classes} - {*scan.filter(split="test")["concept"]})
        if untested:
            have = "class has" if len(untested) == 1 else "classes have"
            yield f"{len(untested):,} {have} no image to test on: {shortlist(untested)}"
        part = f" of {self.decoded:,} looked at" * (self.decoded < scan.height)
        for kind, keys in self.odd.items():
            one, several, said = ODD[kind]
            verb = one if len(keys) == 1 else several
            yield f"{counted(len(keys), 'image')}{part} {verb} {said}: {shortlist(keys)}"
        if self.unreadable:
            first = next(iter(self.unreadable))
            count = counted(len(self.unreadable), "image")
            yield (
                f"{count}{part} cannot be decoded and will be left "
                f"out, such as {first} ({self.unreadable[first]})"
            )
        if self.found.unusable.height:
            row = self.found.unusable.row(0, named=True)
            count = counted(self.found.unusable.height, "image")
            yield (
                f"{count} cannot be used and will be left out, "
                f"such as {row['key']} ({row['reason']})"
            )
        yield from self.found.warnings
        yield from twins_said(self.name, self.found)


def look_at(
    path: Path, base: Path, cache: Path, taken: Container[str], progress: Progress
) -> Looked:
    """What a folder or a table of images holds.

    base: the folder that relative paths of the declaration start from; images below its parent are
    declared relative to it. cache: where digests of files are kept. taken: names that it cannot
    have. Raises `InputError` and `DataError` as the source does, and for what makes no dataset that
    can be learned from.
    """
    path = path.expanduser().absolute()
    declaration = _declared(path, base)
    dataset: Dataset = TypeAdapter(Dataset).validate_python(declaration)
    name = _name_of(path, taken)
    source = dataset.open(name, base, cache)
    found = inspect(source)
    classes = {*found.scan["concept"].unique(), *found.classes}
    if len(classes) < 2:
        raise DataError(
            f"{path} has the one class {', '.join(classes)!r}, and at least two are needed: name "
            "the folder that holds a folder for each class, or a table with a column `concept`"
        )
    if found.scan.filter(split="train").is_empty():
        raise DataError(f"{path} has no images to train on, only a test split: add some")
    every = -(-found.scan.height // MOST_DECODED)
    sample = found.scan.gather_every(every)
    unreadable: dict[str, str] = {}
    odd: dict[str, list[str]] = {kind: [] for kind in ODD}
    reading = Reading(source, dataset.resize, decoding=dataset.decoding)
    workers = os.cpu_count() or 1
    with closing(read_in_order(reading, sample["reference"].to_list(), workers)) as images:
        for done, (key, image) in enumerate(zip(sample["key"], images, strict=True), start=1):
            if image.reason is not None:
                unreadable[key] = image.reason
            for kind in ODD:
                if getattr(image.seen, kind):
                    odd[kind].append(key)
            progress("images", done, sample.height)
    share = (len(unreadable) + found.unusable.height) / max(1, sample.height)
    if share > dataset.unreadable_limit:
        limit = min(1.0, round(share * 1.5 + 0.005, 2))
        declaration = {**declaration, "unreadable_limit": limit}
    return Looked(
        name, path, declaration, found, sample.height, unreadable,
        {kind: tuple(keys) for kind, keys in odd.items() if keys},
    )  # fmt: skip


def _declared(path: Path, base: Path) -> dict[str, Any]:
    """The declaration of a folder, or of a table, by what the path is."""
    kind = "folder" if path.is_dir() else "manifest"
    if not path.exists():
        raise InputError(f"there is no folder or table {path}: name one that holds images")
    if kind == "manifest" and path.suffix.lower() not in TABLES:
        raise InputError(
            f"{path} is no folder of images and no table of them ({' '.join(TABLES)}): tars and "
            "other sources are declared by hand, as docs/datasets.md says"
        )
    inside = path.resolve().is_relative_to(base.resolve().parent)
    place = os.path.relpath(path.resolve(), base.resolve()) if inside else str(path)
    return {"source": {"type": kind, "path": place}, "prompt": "a photo of a {}"}


def _name_of(path: Path, taken: Container[str]) -> str:
    """A name for the dataset and its experiment, from that of the folder or table."""
    name = _UNSAFE.sub("_", path.stem if path.is_file() else path.name).strip("_").lower()[:80]
    return name if name and name not in taken else f"{name}_images".lstrip("_")
