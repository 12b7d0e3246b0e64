"""The source of images in a folder per class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from fomo_dagster.data.declarations import at_default_left_out
from fomo_dagster.data.presence import Presence
from fomo_dagster.data.sources.declared import SplitSource
from fomo_dagster.data.sources.files import DigestCache, resolved
from fomo_dagster.data.sources.folder.beside import CaptionsBeside, Lines
from fomo_dagster.data.sources.folder.captions import Captions, CaptionTable
from fomo_dagster.data.sources.folder.images import ClassFolder, FolderImages
from fomo_dagster.data.sources.tables import Column, TableFormat
from fomo_dagster.errors import InputError
from fomo_dagster.paths import problem_of


class FolderLayout(TableFormat):
    """How a folder of images is laid out: which folders are classes, and where captions are."""

    captions: Literal["beside"] | Path | None = at_default_left_out(
        None,
        description="A CSV, Parquet or JSON-lines table with the columns `path` (relative to the "
        "folder) and `caption`. Several rows per image, or a list, are several captions. It is "
        "looked for in the folder of images, then beside the declaration, then in each folder "
        "that is there (`train/metadata.csv`). `beside`: captions are in `dog.txt`, `dog.caption` "
        "or `dog.json` beside `dog.jpg`.",
    )
    caption_lines: Lines | None = at_default_left_out(
        None,
        description="Of captions beside images: which lines of a text are captions. `first`, "
        "`each`, or `whole` for all lines as one caption. Texts of several lines need it.",
    )
    class_folder: ClassFolder = at_default_left_out(
        "top",
        description="Which folder names an image's class, of `animals/dogs/1.jpg`: `top` "
        "(`animals`, as torchvision's ImageFolder), `nearest` (`dogs`) or `path` (`animals/dogs`).",
    )

    @model_validator(mode="after")
    def _lines_are_beside(self) -> FolderLayout:
        if self.caption_lines is not None and self.captions != "beside":
            raise ValueError("caption_lines goes with `captions: beside` alone")
        return self


class FolderSource(SplitSource, FolderLayout):
    """A folder per class: `path/train/<concept>/…` and `path/test/<concept>/…`, or
    `path/<concept>/…` with a seeded share of every concept held out for testing."""

    places: ClassVar[frozenset[str]] = frozenset({"path", "captions"})

    type: Literal["folder"] = "folder"
    path: Path = Field(description="The folder.")

    @field_validator("columns")
    @classmethod
    def _are_of_captions(cls, columns: dict[Column, str]) -> dict[Column, str]:
        others = sorted(set(columns) - {"path", "caption"})
        if others:
            raise ValueError(
                f"a folder's table names path and caption, not {others[0]}: classes and splits are "
                "folders here; `type: manifest` reads them from a table"
            )
        return columns

    def open(
        self, name: str, base: Path, cache: Path, *, one_concept: str | None = None
    ) -> FolderImages:
        """See `DeclaredSource.open`."""
        path = resolved(base, self.path)
        return FolderImages(
            path,
            captions=self._captions(path, base),
            split_rule=self.split_rule,
            class_folder=self.class_folder,
            one_concept=one_concept,
            cache=DigestCache.of_dataset(cache, name, path),
        )

    def presence(self, name: str, base: Path) -> Presence:
        """See `DeclaredSource.presence`."""
        path = resolved(base, self.path)
        if (problem := problem_of(path, "folder")) is not None:
            return Presence("missing", str(path), problem)
        captions = self._captions(path, base)
        if isinstance(captions, CaptionTable):
            try:
                captions.tables()
            except InputError as error:
                return Presence("incomplete", str(path), str(error))
        return Presence("present", str(path))

    def named_paths(self, base: Path) -> Iterator[Path]:
        """See `DeclaredSource.named_paths`."""
        path = resolved(base, self.path)
        yield path
        captions = self._captions(path, base)
        if isinstance(captions, CaptionTable):
            yield from captions.places

    def _captions(self, path: Path, base: Path) -> Captions | None:
        if self.captions is None:
            return None
        if self.captions == "beside":
            return CaptionsBeside(path, self, self.caption_lines)
        return CaptionTable(self.captions, path, base, self)
