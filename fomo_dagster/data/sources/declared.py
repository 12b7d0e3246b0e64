"""What the declarations of sources share. `registry.py` lists them all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, model_validator

from fomo_dagster.data.declarations import Declaration, at_default_left_out
from fomo_dagster.data.presence import Presence
from fomo_dagster.data.sources.files import resolved
from fomo_dagster.data.sources.source import Source

Access: TypeAlias = Literal["copied", "indexed", "streamed"]
"""How a training comes by images: from shards that they are copied to, from where they lie by an
index, or from where they lie without one."""


class DeclaredSource(Declaration, ABC):
    """Where a dataset's images come from, and how they are found and read.

    places: the fields that say where the images are or how they get there, which is no part of what
    they are.
    """

    places: ClassVar[frozenset[str]] = frozenset()

    if TYPE_CHECKING:
        type: str  # each source's own constant; here it would become the first of all keys

    @property
    def access(self) -> Access:
        """How a training comes by the images."""
        return "copied"

    @abstractmethod
    def open(self, name: str, base: Path, cache: Path, *, one_concept: str | None = None) -> Source:
        """What reads the images of the dataset `name`; nothing is read yet.

        base: the folder that relative paths start from. cache: a folder for digests and for what
        was worked out. one_concept: the concept of all images where the source names none; None
        makes it name them.
        """

    @abstractmethod
    def presence(self, name: str, base: Path) -> Presence:
        """Whether the images of the dataset `name` are on this machine, from a look at few files.

        Nothing is read through: that all images are there, and the right ones, is what a scan finds
        out. Relative paths start from `base`.
        """

    def named_paths(self, base: Path) -> Iterator[Path]:
        """The files and folders on this machine that it names."""
        for field in sorted(self.places):
            place = getattr(self, field)
            if isinstance(place, Path):
                yield resolved(base, place)


Splits = Annotated[
    dict[Literal["train", "test"], tuple[str, ...]],
    Field(description="Our splits, each with the source's that it is made of; the usual names are "
    "known without. {}: the source has none."),
]  # fmt: skip


class SplitSource(DeclaredSource):
    """Base of sources whose splits have names of their own."""

    may_have_none: ClassVar[bool] = True

    splits: Splits | None = at_default_left_out(None)
    test_share: float = Field(
        0.2, ge=0, lt=1, description="Share of each concept held out where nothing is for testing."
    )

    @model_validator(mode="after")
    def _splits_are_distinct(self) -> SplitSource:
        names = [name for part in (self.splits or {}).values() for name in part]
        if self.splits is not None and not names and (self.splits or not self.may_have_none):
            raise ValueError("splits names none: leave it out for the usual ones")
        if len(set(names)) != len(names):
            raise ValueError("splits names one of the source's splits twice")
        return self


ALLOW_OUTSIDE = at_default_left_out(
    False,
    description="Read images that a table names outside its root (of a dataset for the library "
    "`datasets`, its folder), by `..`, a link or a path.",
)
