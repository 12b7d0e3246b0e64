"""What a report consists of: sections of tables, figures and pictures, each with its source."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias, TypeVar

import polars as pl
from matplotlib.figure import Figure as Drawing
from PIL import Image

from fomo_dagster.plots.figure import svg

T = TypeVar("T")
_MINUS = re.compile(r"(?<!\w)-(?=\d)")


@dataclass(frozen=True)
class Source:
    """What a table or figure was made from. query: what gives the rows with `fomo sql`; command:
    what prints or draws them, if nothing else does the whole report; digests: asset → digest of
    what was read."""

    query: str
    command: str
    digests: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """Rows. name: of its files. shown: what is printed, fractions to two places; data: every digit,
    for CSV. numbers: columns that hold numbers as texts, if they are there; best: column → the rows
    that stand out."""

    name: str
    caption: str
    shown: pl.DataFrame
    data: pl.DataFrame
    source: Source
    numbers: Sequence[str] = ()
    best: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def headings(self) -> list[str]:
        return self.shown.columns

    def is_number(self, column: str) -> bool:
        """Whether a column is set to the right."""
        return column in self.numbers or self.shown[column].dtype.is_numeric()

    def cells(self) -> list[list[str]]:
        """Row by row, as people read them; numbers with the sign of minus."""
        return [
            [
                _MINUS.sub("−", _written(value)) if self.is_number(name) else _written(value)
                for name, value in zip(self.headings, row, strict=True)
            ]
            for row in self.shown.iter_rows()
        ]


@dataclass(frozen=True)
class Figure:
    """A drawing. name: of its files."""

    name: str
    caption: str
    drawing: Drawing
    source: Source

    @cached_property
    def svg(self) -> bytes:
        """The drawing as vectors."""
        return svg(self.drawing)


@dataclass(frozen=True)
class Tile:
    """A picture of a sample, with a heading above a text."""

    image: Image.Image
    heading: str
    text: str


@dataclass(frozen=True)
class Pictures:
    """Pictures of samples."""

    caption: str
    tiles: Sequence[Tile]
    source: Source


@dataclass(frozen=True)
class Fold:
    """Blocks of which a page shows the title until it is opened."""

    title: str
    blocks: Sequence[Table | Figure | Pictures | str | tuple[str, ...]]


Block: TypeAlias = Table | Figure | Pictures | Fold | str | tuple[str, ...]
"""A text is a paragraph, several are a list."""


@dataclass(frozen=True)
class Section:
    """A part of a report. name: of its anchor."""

    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """A whole page. newest: when the newest of what it shows was made; command: what makes it
    again."""

    title: str
    newest: str
    command: str
    remarks: Sequence[str]
    sections: Sequence[Section]

    def all_of(self, kind: type[T]) -> list[T]:
        """The blocks of a kind, in order, those within folds included."""
        blocks = [block for section in self.sections for block in section.blocks]
        flat = [one for b in blocks for one in (b.blocks if isinstance(b, Fold) else [b])]
        return [one for one in flat if isinstance(one, kind)]


def _written(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)
