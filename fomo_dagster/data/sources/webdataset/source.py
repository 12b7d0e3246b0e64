"""The source of tars that are read where they lie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal, NoReturn

from pydantic import Field, field_validator, model_validator

from fomo_dagster.data.declarations import at_default_left_out
from fomo_dagster.data.decoding import Decoding
from fomo_dagster.data.formats import extensions
from fomo_dagster.data.presence import Presence
from fomo_dagster.data.sources.declared import Access, Splits, SplitSource
from fomo_dagster.data.sources.files import resolved
from fomo_dagster.data.sources.webdataset.first_tar import FirstTar
from fomo_dagster.data.sources.webdataset.indexed import IndexedTars
from fomo_dagster.data.sources.webdataset.listing import (
    ShardFile,
    is_local,
    list_shards,
    said_of_others,
)
from fomo_dagster.data.sources.webdataset.shard_splits import split_shards
from fomo_dagster.errors import DataError, InputError, nearest


class WebDatasetSource(SplitSource):
    """Tars in img2dataset's layout, an image and a text under one name. They are read where they
    are: indexed, or streamed without an index."""

    places: ClassVar[frozenset[str]] = frozenset({"shards"})

    type: Literal["webdataset"] = "webdataset"
    shards: str | tuple[str, ...] = Field(
        description="A folder, a glob, a brace range `{00000..00127}.tar`, or a list of these; on "
        "this machine, or as URLs of any store that fsspec reaches."
    )
    index: bool = Field(
        True,
        description="true: read all tars once and index every sample. false: stream them, for "
        "remote stores and sets that are too large to index; only pretraining pools "
        "can use them.",
    )
    image_extensions: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Extensions of images, such as jpg or mask.png. Of several in a sample, the "
        "first in this list counts. By default all that Pillow decodes.",
    )
    splits: Splits | None = at_default_left_out(
        None, description="Our splits, each with patterns of its shards' names."
    )
    test_share: float = Field(0.0, ge=0, lt=1, description="Share of samples to hold out.")
    samples_per_visit: int = Field(
        1000,
        ge=1,
        description="For streamed tars: draw this many samples from a shard before another has "
        "its turn.",
    )
    shards_at_once: int = Field(
        4, ge=1, description="For streamed tars: draw neighbouring samples from this many shards."
    )

    @field_validator("image_extensions")
    @classmethod
    def _are_of_images(cls, declared: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if declared is None:
            return None
        for one in declared:
            meant = one.lower().lstrip("*.")
            if meant != one:
                raise ValueError(f"{one!r} is not an extension: write {meant!r}")
            if one.rpartition(".")[2] not in extensions():
                raise ValueError(
                    f"{one!r} is not an extension of images that Pillow decodes: "
                    + nearest(one, extensions())
                )
        if len(set(declared)) != len(declared):
            raise ValueError("it names an extension twice: leave one out")
        return declared

    @property
    def access(self) -> Access:
        """See `DeclaredSource.access`."""
        return "indexed" if self.index else "streamed"

    @property
    def images(self) -> tuple[str, ...]:
        """The extensions of images, in the order in which they count."""
        return self.image_extensions or extensions()

    @property
    def patterns(self) -> tuple[str, ...]:
        """The shards, as a list of patterns."""
        return (self.shards,) if isinstance(self.shards, str) else self.shards

    @model_validator(mode="after")
    def _suits_its_mode(self) -> WebDatasetSource:
        if not self.patterns or not all(self.patterns):
            raise ValueError("shards is empty: name a folder, a pattern or a list of them")
        remote = [pattern for pattern in self.patterns if "://" in pattern]
        if self.index and remote:
            raise ValueError(
                f"the shards {remote[0]!r} are not on this machine, so they cannot be "
                "indexed in place: add `index: false`"
            )
        streamed = {"samples_per_visit", "shards_at_once"} & self.model_fields_set
        if self.index and streamed:
            raise ValueError(f"{min(streamed)} needs `index: false`")
        if not self.index and self.test_share > 0:
            raise ValueError("a streamed dataset cannot hold samples out: leave out test_share")
        if not self.index and self.splits and "train" not in self.splits:
            raise ValueError("a streamed dataset serves training only: name shards in splits.train")
        return self

    def open(
        self, name: str, base: Path, cache: Path, *, one_concept: str | None = None
    ) -> NoReturn:
        """Raises `InputError`: nothing copies the images."""
        raise InputError(f"the tars of dataset {name!r} are read in place, never copied")

    def index_tars(self, name: str, base: Path, cache: Path, *, decoding: Decoding) -> IndexedTars:
        """The tars of the dataset `name`, where they are indexed; see `open`."""
        return IndexedTars(
            self.patterns,
            base,
            self.images,
            concept=name,
            split_rule=self.split_rule,
            decoding=decoding,
            cache=cache / "tars",
        )

    def first_tar(self, name: str, base: Path) -> FirstTar:
        """The first of the tars of the dataset `name`, where they are on this machine."""
        return FirstTar(self.patterns, base, self.images, name)

    def list_tars(self, name: str, base: Path) -> tuple[list[ShardFile], tuple[str, ...]]:
        """The tars of the dataset `name` that are for training, and sentences about the others,
        where they are streamed. Raises `DataError` if none is for training."""
        listed = list_shards(self.patterns, base)
        names = [file.name for file in listed]
        splits = split_shards(names, self.splits, f"the dataset {name!r}")
        files = [file for file in listed if splits.of.get(file.name) == "train"]
        if not files:
            raise DataError(
                f"dataset {name!r}: none of its {len(listed)} shards is for training, and a "
                "streamed dataset serves nothing else: name them with `splits`"
            )
        return files, (*splits.notes, *said_of_others(self.patterns, base))

    def presence(self, name: str, base: Path) -> Presence:
        """See `DeclaredSource.presence`."""
        place = ", ".join(self.patterns)
        if not all(map(is_local, self.patterns)):
            return Presence("on demand", place, "streamed")
        try:
            list_shards(self.patterns, base)
        except DataError:
            return Presence("missing", place, "no such tars")
        return Presence("present", place)

    def named_paths(self, base: Path) -> Iterator[Path]:
        """The folders that its shards lie in, as far as patterns leave them open."""
        for pattern in filter(is_local, self.patterns):
            literal = re.split(r"[*?\[{]", pattern, maxsplit=1)[0]
            yield resolved(base, Path(literal if literal == pattern else literal + "x").parent)
