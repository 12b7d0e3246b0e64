"""Which of a dataset's samples its contact sheet shows."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from typing import Any

import polars as pl
import pytest
from PIL import Image

from fomo_dagster.errors import DataError
from fomo_dagster.plots.dataset_sheet import TILES, dataset_sheet


def table(counts: Mapping[str, int]) -> pl.DataFrame:
    concepts = [concept for concept, count in counts.items() for _ in range(count)]
    return pl.DataFrame(
        {
            "concept": concepts,
            "captions": [["one", "two"]] * len(concepts),
            "reference": [str(number) for number in range(len(concepts))],
        }
    )


def png() -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ({"a": 50, "b": 3, "c": 1}, {"a": 20, "b": 3, "c": 1}),
        ({"a": 2}, {"a": 2}),
        ({f"{i:03d}": 5 for i in range(240)}, {f"{i:03d}": 1 for i in range(0, 240, 10)}),
    ],
)
def test_the_tiles_are_spread_over_the_concepts(
    counts: dict[str, int], shown: dict[str, int]
) -> None:
    read: list[str] = []

    def remember(row: Mapping[str, Any]) -> bytes:
        read.append(row["concept"])
        return png()

    sheet = dataset_sheet(table(counts), remember, "pets")
    assert Image.open(io.BytesIO(sheet)).format == "PNG"
    assert dict(Counter(read)) == shown
    assert len(read) <= TILES


def test_what_cannot_be_decoded_is_left_out() -> None:
    broken = {"0", "1"}
    sheet = dataset_sheet(
        table({"a": 3}), lambda row: b"no image" if row["reference"] in broken else png(), "pets"
    )
    alone = dataset_sheet(table({"a": 1}), lambda row: png(), "pets")
    assert Image.open(io.BytesIO(sheet)).size == Image.open(io.BytesIO(alone)).size
    with pytest.raises(DataError, match="none of 3 images of pets"):
        dataset_sheet(table({"a": 3}), lambda row: b"no image", "pets")
