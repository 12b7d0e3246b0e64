"""Figures of comparisons, looked at through matplotlib's objects."""

import polars as pl
import pytest
from matplotlib.collections import FillBetweenPolyCollection

from fomo_dagster.plots.comparisons import pairs_figure, profiles_figure

pytestmark = pytest.mark.slow


def test_a_pair_stands_on_both_sides_of_the_diagonal_with_opposite_signs():
    pairs = pl.DataFrame(
        [("a", "b", 2.0, 5, 1, 0.04), ("a", "c", -4.0, 0, 6, 0.0004), ("b", "c", -6.0, 1, 5, 1.0)],
        schema=["first", "second", "difference", "wins", "losses", "p"], orient="row",
    )  # fmt: skip
    axes = pairs_figure(pairs, ["a", "b", "c"]).axes[0]
    (cells,) = axes.collections
    shown = cells.get_array().filled(0).tolist()
    assert shown == [[0, 2, -4], [-2, 0, -6], [4, 6, 0]]
    texts = {(int(x), int(y)): text.get_text() for text in axes.texts
             for x, y in [text.get_position()]}  # fmt: skip
    assert texts[1, 0] == "+2.00\n5 : 1\np 0.040"
    assert texts[0, 2] == "+4.00\n6 : 0\np < 0.001"
    assert len(texts) == 6


def test_a_profile_is_a_step_with_a_band_where_there_are_runs_to_draw():
    rows = [("one", 0.0, 1.0, None, None), ("one", 50.0, 0.5, None, None),
            ("three", 0.0, 1.0, 0.9, 1.0), ("three", 50.0, 0.4, 0.2, 0.6)]  # fmt: skip
    profiles = pl.DataFrame(rows, schema=["method", "above", "share", "low", "high"], orient="row")
    axes = profiles_figure(profiles).axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[1.0, 0.5], [1.0, 0.4]]
    bands = [c for c in axes.collections if isinstance(c, FillBetweenPolyCollection)]
    assert len(bands) == 1
