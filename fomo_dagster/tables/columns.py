"""What a table and its columns are, and the columns that several tables have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import polars as pl

TEXT, INTEGER, NUMBER = pl.String(), pl.Int64(), pl.Float64()


class Column(NamedTuple):
    """A column of a table. nullable: whether a value may be missing or unknown."""

    type: pl.DataType
    meaning: str
    nullable: bool = False


class Table(NamedTuple):
    """description: completes the sentence "a row is …"."""

    description: str
    columns: Mapping[str, Column]


EXPERIMENT = Column(TEXT, "the experiment's name")
STAGE = Column(INTEGER, "the stage, counted from 1; 0 is θ₀")
DATASET = Column(TEXT, "the dataset's name")
CONCEPT = Column(TEXT, "the concept's name, a class of the dataset")
ROLE = Column(TEXT, "`adaptation` or `held_out`")
STREAM = Column(TEXT, "the stream's name")
COMPARISON = Column(TEXT, "the comparison's name, that of its file")
