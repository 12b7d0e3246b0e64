"""The source of images in a folder per class."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from fomo_dagster.data.presence import Presence
from fomo_dagster.data.sources.declared import SplitSource
from fomo_dagster.data.sources.files import DigestCache, resolved
from fomo_dagster.data.sources.folder.images import FolderImages
from fomo_dagster.data.sources.tables import TableFormat
from fomo_dagster.paths import problem_of


class FolderSource(SplitSource, TableFormat):
    """A folder per class: `path/train/<concept>/…` and `path/test/<concept>/…`, or
    `path/<concept>/…` with a seeded share of every concept held out for testing."""

    places: ClassVar[frozenset[str]] = frozenset({"path", "captions"})

    type: Literal["folder"] = "folder"
    path: Path = Field(description="The folder.")
    captions: Path | None = Field(
        None,
        description="A CSV, Parquet or JSON-lines table with the columns `path` (relative to the "
        "folder) and `caption`. Several rows per image, or a list, are several "
        "captions.",
    )

    def open(
        self, name: str, base: Path, cache: Path, *, one_concept: str | None = None
    ) -> FolderImages:
        """See `DeclaredSource.open`."""
        path = resolved(base, self.path)
        return FolderImages(
            path,
            captions=resolved(base, self.captions) if self.captions else None,
            form=self,
            splits=self.splits,
            test_share=self.test_share,
            one_concept=one_concept,
            cache=DigestCache.of_dataset(cache, name, path),
        )

    def presence(self, name: str, base: Path) -> Presence:
        """See `DeclaredSource.presence`."""
        path = resolved(base, self.path)
        if (problem := problem_of(path, "folder")) is not None:
            return Presence("missing", str(path), problem)
        captions = None if self.captions is None else resolved(base, self.captions)
        if captions is not None and (problem := problem_of(captions, "file")) is not None:
            return Presence("incomplete", str(path), problem)
        return Presence("present", str(path))
