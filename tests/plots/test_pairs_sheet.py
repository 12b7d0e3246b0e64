"""Sheets of pairs say of each pair how near it is, whatever the datasets are called."""

import polars as pl
from PIL import Image

from fomo_dagster.plots.contact_sheet import HEADING_LINES, HEADING_WIDTH, _lines
from fomo_dagster.plots.pairs_sheet import pair_tiles


def test_how_near_a_pair_is_stands_before_what_a_long_name_cuts() -> None:
    name = "live_2026_11_01_of_the_northern_shop"
    pairs = pl.DataFrame(
        [
            {
                "kind": "earlier", "dataset": name, "key": "a.png", "other_dataset": name,
                "other_split": "train", "other_key": "b.png", "distance": 12, "similarity": None,
            }
        ]
    )  # fmt: skip
    one, other = pair_tiles(pairs, lambda *_: Image.new("RGB", (8, 8)))
    assert (one.text, other.text) == ("a.png", "b.png")
    shown = " ".join(_lines(other.heading, HEADING_WIDTH, HEADING_LINES))
    assert shown.startswith("earlier: 12 bits apart")
