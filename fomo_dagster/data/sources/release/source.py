"""The source of the benchmark's datasets, in a local copy of its release."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from fomo_dagster.data.benchmark.registry import BenchmarkDataset, find
from fomo_dagster.data.benchmark.release import RELEASE_VARIABLE, Release
from fomo_dagster.data.presence import NO_RELEASE, Presence
from fomo_dagster.data.sources.declared import DeclaredSource
from fomo_dagster.data.sources.files import resolved
from fomo_dagster.data.sources.release.images import ReleaseImages
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.units import byte_size


class FomoReleaseSource(DeclaredSource):
    """A dataset of FoMo-in-Flux, from a local copy of the benchmark's release."""

    places: ClassVar[frozenset[str]] = frozenset({"release", "images"})

    type: Literal["fomo_release"] = "fomo_release"
    dataset: str | None = Field(
        None, description="Its handle, folder or alias in the benchmark; null: the declared name."
    )
    release: Path | None = Field(
        None, description="The copy of the release's repository; by default $FOMO_RELEASE."
    )
    images: Path | None = Field(
        None,
        description="The folder with `<FOLDER>.tar` or `<FOLDER>/`; by default "
        "$FOMO_RELEASE_IMAGES, or else the folder `data` in the release.",
    )
    resized: bool = Field(
        True, description="Use the release's copies at 224 pixels if it has them."
    )
    allow_incomplete: bool = Field(
        False, description="Leave out what is missing, with a warning, instead of refusing."
    )

    def open(
        self, name: str, base: Path, cache: Path, *, one_concept: str | None = None
    ) -> ReleaseImages:
        """See `DeclaredSource.open`; the release says what has classes.

        Raises `InputError` if there is no copy of the release or no such dataset.
        """
        return ReleaseImages(
            name,
            find(self.dataset or name),
            self.located(base),
            resized=self.resized,
            allow_incomplete=self.allow_incomplete,
            cache=cache,
        )

    def presence(self, name: str, base: Path) -> Presence:
        """See `DeclaredSource.presence`."""
        try:
            release = self.located(base)
        except InputError:
            return Presence("missing", f"${RELEASE_VARIABLE}", NO_RELEASE)
        return _in_release(find(self.dataset or name), release)

    def located(self, base: Path) -> Release:
        """See `Release.locate`."""
        return Release.locate(
            resolved(base, self.release) if self.release else None,
            resolved(base, self.images) if self.images else None,
        )


def _in_release(dataset: BenchmarkDataset, release: Release) -> Presence:
    archive, folder = release.archive(dataset), release.folder(dataset)
    place = folder if folder.is_dir() and not archive.is_file() else archive
    if not place.exists():
        part = archive.with_name(f"{archive.name}.part")
        if part.exists():
            said = f"{byte_size(part.stat().st_size)} downloaded"
            return Presence("incomplete", str(archive), said)
        return Presence("missing", str(archive), "no archive")
    lacking = [
        path.name
        for split, expected in (("train", dataset.train), ("test", dataset.test))
        if expected and not (path := release.info_file(dataset, split)).is_file()
    ]
    try:
        release.class_names(dataset)
    except DataError:
        lacking.append("class list")
    note = "no " + ", ".join(lacking) if lacking else ""
    return Presence("incomplete" if lacking else "present", str(place), note)
