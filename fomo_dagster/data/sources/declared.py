"""What all declarations of sources share; `registry.py` lists them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from pydantic import Field, model_validator

from fomo_dagster.data.declarations import Declaration, at_default_left_out
from fomo_dagster.data.presence import Presence
from fomo_dagster.data.sources.files import resolved
from fomo_dagster.data.sources.source import Source
from fomo_dagster.data.sources.splits import SplitRule

Access: TypeAlias = Literal["copied", "indexed", "streamed"]
"""How a training comes by images: from shards that they are copied to, from where they lie by an
index, or from where they lie without one."""


class DeclaredSource(Declaration, ABC):
    """Where a dataset's images come from, and how they are found and read.

    places: the fields that say where the images are or how they get there. They are no part of what
    the images are.
    """

    places: ClassVar[frozenset[str]] = frozenset()

    if TYPE_CHECKING:
        type: str  # each source's own constant; here it would become the first of all keys

    @property
    def access(self) -> Access:
        """How a training gets the images."""
        return "copied"

    @abstractmethod
    def open(self, name: str, base: Path, cache: Path, *, one_concept: str | None = None) -> Source:
        """What reads the images of the dataset `name`. Nothing is read yet.

        base: the folder that relative paths start from. cache: a folder for digests and derived
        tables. one_concept: the concept of all images if the source names none; None makes it name
        them.
        """

    @abstractmethod
    def presence(self, name: str, base: Path) -> Presence:
        """Whether the images of the dataset `name` are on this machine, from a look at few files.

        Only a scan finds out whether all images are there, and the right ones. Relative paths start
        from `base`.
        """

    def named_paths(self, base: Path) -> Iterator[Path]:
        """The files and folders on this machine that it names."""
        for field in sorted(self.places):
            place = getattr(self, field)
            if isinstance(place, Path):
                yield resolved(base, place)


Splits: TypeAlias = dict[Literal["train", "test"], tuple[str, ...]]
"""Our splits, each with the source's that it is made of."""


class SplitSource(DeclaredSource):
    """Base of sources that name their own splits."""

    may_have_none: ClassVar[bool] = True

    splits: Splits | None = at_default_left_out(
        None,
        description="Which of the source's splits make up ours; by default the usual names are "
        "known. {}: the source has no splits.",
    )
    test_share: float = Field(
        0.2, ge=0, lt=1, description="Share of each concept to hold out if no split is for testing."
    )

    @property
    def split_rule(self) -> SplitRule:
        """Its splits, or the share that is held out."""
        return SplitRule(self.splits, self.test_share)

    @model_validator(mode="after")
    def _splits_are_distinct(self) -> SplitSource:
        names = [name for part in (self.splits or {}).values() for name in part]
        if self.splits is not None and not names and (self.splits or not self.may_have_none):
            raise ValueError("splits is empty: leave it out to use the usual names")
        if len(set(names)) != len(names):
            raise ValueError("splits names one of the source's splits twice")
        return self


ALLOW_OUTSIDE = at_default_left_out(
    False,
    description="Also read images that a table names outside its root (for the library `datasets`, "
    "outside the dataset's folder), by `..`, a link or a path.",
)
