"""A first look at a person's images: the dataset that they make, and what is odd about them.

The dataset's own source inspects the folder or table, and its images are decoded as for its shards.
Images in tars, on Hugging Face's hub and in torchvision's sets are not covered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import TypeAdapter

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.sources.rows import SUFFIXES as TABLES
from fomo_dagster.data.sources.source import listing, twins_said
from fomo_dagster.data.survey import Survey, survey
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.progress import Progress
from fomo_dagster.project import guessing

MOST_DECODED = 5000  # of larger datasets, as many images are looked at, evenly spread
NAMING = 0.5  # the share of captions that name their class, below which the prompt is better
_UNSAFE = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True)
class Looked:
    """A dataset that a person's images make, and what a look at them found.

    declaration: as it stands in the dataset's file. told: sentences about what was chosen in it.
    """

    name: str
    path: Path
    declaration: Mapping[str, Any]
    survey: Survey
    told: tuple[str, ...] = ()

    @property
    def naming(self) -> float | None:
        """The share of images with captions whose captions name their class, in the singular or the
        plural; None if no image has any."""
        rows = self.survey.found.scan.filter(pl.col("captions").list.len() > 0)
        if rows.is_empty():
            return None
        name = (
            pl.col("concept").str.to_lowercase().str.replace_all("[_-]", " ").str.strip_chars("s")
        )
        text = pl.col("captions").list.join(" ").str.to_lowercase()
        return sum(rows.select(text.str.contains(name, literal=True)).to_series()) / rows.height

    @property
    def trains_on_prompt(self) -> bool:
        """Whether captions would teach too few of the names that classes are scored by."""
        return self.naming is not None and self.naming < NAMING

    def sentences(self) -> Iterator[str]:
        """What a person should know of their images, the main thing first."""
        yield from self.survey.sentences()
        yield from self.told
        if self.trains_on_prompt:
            yield (
                f"captions name their class in {self.naming:.0%} of the images, and scores are by "
                "class names: the experiment trains on the prompt (`training_texts`)"
            )
        yield from self.survey.found.warnings
        yield from twins_said(self.name, self.survey.found)


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
    name = _name_of(path, taken)
    declaration, told = _guessed(path, name, _declared(path, base), base, cache)
    dataset = _validated(declaration)
    looked = survey(
        dataset.open(name, base, cache),
        dataset.decoding,
        most=MOST_DECODED,
        workers=os.cpu_count() or 1,
        progress=progress,
    )
    if len(looked.classes) < 2:
        raise DataError(
            f"{path} has the one class {', '.join(looked.classes)!r}, and at least two are needed: "
            "name the folder that holds a folder for each class, or a table with a column `concept`"
        )
    if not looked.counts.get("train"):
        raise DataError(f"{path} has no images to train on, only a test split: add some")
    if looked.lost > dataset.unreadable_limit:
        limit = min(1.0, round(looked.lost * 1.5 + 0.005, 2))
        declaration = {**declaration, "unreadable_limit": limit}
    return Looked(
        name, path, declaration, looked, (*told, *(_nested(looked) if path.is_dir() else ()))
    )


def _guessed(
    path: Path, name: str, declaration: Mapping[str, Any], base: Path, cache: Path
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The declaration with what is likely to be meant, and sentences about that.

    Of the places that captions could be in, the first by which half of the images have one.
    """
    if path.is_file():
        guesses = guessing.of_table(path)
        source = {**declaration["source"], **(guesses[0].declared if guesses else {})}
        return {**declaration, "source": source}, tuple(guess.said for guess in guesses)
    for guess in guessing.of_folder(path):
        guessed = {**declaration, "source": {**declaration["source"], **guess.declared}}
        try:
            captions = listing(_validated(guessed).open(name, base, cache)).scan["captions"]
        except DataError:  # of what is wrong whatever is guessed, the look itself tells
            continue
        if (captions.list.len() > 0).sum() * 2 >= len(captions):
            return guessed, (guess.said,)
    return declaration, ()


def _validated(declaration: Mapping[str, Any]) -> Dataset:
    return TypeAdapter(Dataset).validate_python(declaration)


def _nested(looked: Survey) -> Iterator[str]:
    """A sentence where images lie in folders below those of their classes."""
    rows = looked.found.scan.select("concept", folder=pl.col("key").str.replace(r"/[^/]*$", ""))
    nested = rows.filter(pl.col("folder").str.split("/").list.last() != pl.col("concept"))
    folders = nested.filter(pl.col("folder").str.contains("/"))["folder"].n_unique()
    if folders:
        yield (
            f"{nested.height:,} images lie in {folders:,} folders below those of their classes; to "
            "make these the classes, declare `class_folder: nearest` in the source"
        )


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
