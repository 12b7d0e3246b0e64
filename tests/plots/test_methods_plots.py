"""Figures of methods, looked at through matplotlib's objects: nothing is drawn."""

import numpy as np
import polars as pl
import pytest
from matplotlib.collections import FillBetweenPolyCollection, QuadMesh
from matplotlib.patches import Ellipse

from fomo_dagster.plots.methods import (
    grid_figure,
    matrices_figure,
    over_stages_figure,
    paths_figure,
    responses_figure,
)

pytestmark = pytest.mark.slow

SCORES = ("knowledge_accumulation", "zero_shot_retention", "geometric_mean")


def stages(*rows):
    """rows: method, stage, the value of all three scores, and the half width of its interval."""
    return pl.DataFrame(
        [
            {"method": method, "stage": stage, "flops": 100.0 * stage}
            | dict.fromkeys(SCORES, value)
            | {f"{name}_within": within for name in SCORES}
            for method, stage, value, within in rows
        ],
        schema_overrides={f"{name}_within": pl.Float64 for name in SCORES},
    )


TWO = stages(("a", 0, 10, 0.0), ("a", 1, 20, 4.0), ("a", 2, 30, 90.0), ("top", 1, 40, None))


def test_lines_are_means_and_bands_their_intervals():
    axes = over_stages_figure(TWO, ["a", "top"], ["top"], "flops").axes[0]
    line, oracle = axes.lines
    assert line.get_xydata().tolist() == [[0, 10], [100, 20], [200, 30]]
    assert oracle.get_xydata().tolist() == [[100, 40]]
    (band,) = (one for one in axes.collections if isinstance(one, FillBetweenPolyCollection))
    corners = band.get_paths()[0].vertices.tolist()
    assert [100, 16] in corners
    assert [100, 24] in corners


def test_an_interval_wider_than_all_means_are_apart_leaves_these_to_be_seen():
    low, high = over_stages_figure(TWO, ["a", "top"], []).axes[0].get_ylim()
    assert (-2 < low < 0, 70 < high < 76) == (True, True)  # 40 and the 30 that means are apart
    narrow = TWO.with_columns(pl.col("^.*_within$").clip(upper_bound=4))
    low, high = over_stages_figure(narrow, ["a", "top"], []).axes[0].get_ylim()
    assert (7 < low < 10, 40 < high < 43) == (True, True)


def test_paths_have_an_ellipse_at_each_interval_and_one_start():
    axes = paths_figure(TWO, ["a", "top"], ["top"]).axes[0]
    ellipses = {(*one.center, one.width, one.height) for one in axes.patches
                if isinstance(one, Ellipse)}  # fmt: skip
    assert ellipses == {(10, 10, 0, 0), (20, 20, 8, 8), (30, 30, 180, 180)}
    labels = [line.get_label() for line in axes.lines if line.get_label()[0] != "_"]
    assert labels == ["a", "top", "θ₀"]


def test_single_runs_are_marked_beside_means():
    some = TWO.with_columns(replicates=pl.when(pl.col("method") == "a").then(5).otherwise(1))
    for figure in (
        paths_figure(some, ["a", "top"], ["top"]), over_stages_figure(some, ["a", "top"], []),
        over_stages_figure(some, ["a", "top"], ["top"], "flops"),
        responses_figure(some.rename({"method": "others", "stage": "value"}), "rate"),
    ):  # fmt: skip
        labels = [line.get_label() for line in figure.axes[0].lines]
        assert [one for one in labels if one[0] not in "_θ"] == ["a", "top (one run)"]
    alone = some.with_columns(replicates=pl.lit(1))
    lines = over_stages_figure(alone, ["a", "top"], []).axes[0].lines
    assert [line.get_label() for line in lines] == ["a", "top"]


@pytest.mark.parametrize("methods", [1, 4])
def test_cells_stand_where_their_stage_and_chunk_do(methods):
    rows = [(f"m{m}", stage, chunk, 10.0 * m + 3 * stage + chunk)
            for m in range(methods) for stage in range(3) for chunk in (1, 2)]  # fmt: skip
    matrix = pl.DataFrame(rows, schema=["method", "stage", "chunk", "score"], orient="row")
    matrix = matrix.with_columns(chance=pl.when(pl.col("chunk") == 2).then(100 / 22))
    figure = matrices_figure(matrix, [f"m{m}" for m in range(methods)])
    labels = [label.get_text() for label in figure.axes[methods - 1].get_xticklabels()]
    assert labels == ["1", "2\n4.5"]  # chance, where it is known
    for number in range(methods):
        (mesh,) = (c for c in figure.axes[number].collections if isinstance(c, QuadMesh))
        expected = 10.0 * number + np.array([[1, 2], [4, 5], [7, 8]])
        assert np.array_equal(np.asarray(mesh.get_array()).reshape(3, 2), expected)
        assert figure.axes[number].get_ylim() == (2.5, -0.5)  # stage 0 above


def test_methods_with_other_streams_have_labels_of_their_own():
    rows = [("a", 0, 1, 30.0, 25.0), ("b", 0, 1, 60.0, 50.0)]
    columns = ["method", "stage", "chunk", "score", "chance"]
    figure = matrices_figure(pl.DataFrame(rows, schema=columns, orient="row"), ["a", "b"])
    labels = [axes.get_xticklabels()[0].get_text() for axes in figure.axes[:2]]
    assert labels == ["1\n25", "1\n50"]


def test_a_cell_that_nothing_fills_is_empty():
    grid = pl.DataFrame(
        [("ties", "initial", "joint", 5.0), ("ties", "trained", "fold", 7.0)],
        schema=["technique", "start_from", "deploy", "geometric_mean"], orient="row",
    )  # fmt: skip
    (mesh,) = (c for c in grid_figure(grid).axes[0].collections if isinstance(c, QuadMesh))
    values = np.ma.filled(mesh.get_array(), np.nan).reshape(2, 2)
    assert np.array_equal(values, [[np.nan, 5], [7, np.nan]], equal_nan=True)
