import io
import subprocess
import sys
import warnings
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from fomo_dagster.errors import InputError
from fomo_dagster.plots import scores as plots
from fomo_dagster.plots.figure import COLOURS
from fomo_dagster.plots.scores import BAND, cost_plot, heat_map, paths_plot

pytestmark = pytest.mark.slow


def pixels(png: bytes) -> npt.NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(np.int64)


def count(png: bytes, colour: str | tuple[float, float, float]) -> int:
    rgb = np.round(np.array(to_rgb(colour)) * 255)
    return int((np.abs(pixels(png) - rgb).max(-1) <= 1).sum())


def scores(experiment: str, *points: tuple[float | None, float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        [(experiment, stage, ka, zs) for stage, (ka, zs) in enumerate(points)],
        schema={
            "experiment": pl.String,
            "stage": pl.Int64,
            "knowledge_accumulation": pl.Float64,
            "zero_shot_retention": pl.Float64,
        },
        orient="row",
    )


def evaluations(*rows: tuple[str, str, int, float]) -> pl.DataFrame:
    return pl.DataFrame(
        [(*row[:3], "score", row[3]) for row in rows],
        schema=["role", "dataset", "stage", "metric", "value"],
        orient="row",
    )


def test_every_experiment_has_its_own_colour() -> None:
    three = pl.concat(
        [
            scores("a", (10, 90), (30, 80)),
            scores("b", (10, 70), (30, 60)),
            scores("c", (10, 50), (30, 40)),
        ]
    )
    png = paths_plot(three)
    assert [count(png, colour) > 200 for colour in COLOURS[:4]] == [True, True, True, False]


def by_cost(rows: list[tuple[Any, ...]], within: float | None = None) -> pl.DataFrame:
    columns = ["method", "stage", "geometric_mean", "flops"]
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    replicates = pl.lit(1 if within is None else 3)
    return frame.with_columns(replicates=replicates, geometric_mean_within=pl.lit(within))


def test_intervals_over_replicates_are_bands() -> None:
    rows = [("a", 0, 20.0, 0.0), ("a", 1, 40.0, 1e18)]
    red, green, blue = (BAND * part + 1 - BAND for part in to_rgb(COLOURS[0]))
    shade = (red, green, blue)
    without, with_band = (cost_plot(by_cost(rows, within), "flops") for within in (None, 5.0))
    assert count(without, shade) < 500
    assert count(with_band, shade) > 5000


def test_scores_rise_with_their_cost_and_unknown_costs_have_no_place() -> None:
    rows = [("a", 0, 20.0, 0.0), ("a", 1, 40.0, 1e18), ("b", 0, 30.0, 0.0), ("b", 1, 30.0, None)]
    png = cost_plot(by_cost(rows), "flops")
    rgb = np.round(np.array(to_rgb(COLOURS[0])) * 255)
    places = np.nonzero((pixels(png) == rgb).all(-1))
    left = places[1] < 700
    assert np.corrcoef(places[0][left], places[1][left])[0, 1] < -0.9
    assert count(png, COLOURS[1]) < 200  # a point, and its line in the legend


def test_a_path_of_one_run_is_marked_beside_means(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("fomo_dagster.plots.scores.png", lambda figure: drawn.append(figure) or b"")
    both = pl.concat([scores("a", (10, 55), (60, 20)), scores("b", (10, 55), (40, 30))])
    counts = pl.when(pl.col("experiment") == "a").then(3).otherwise(1)
    paths_plot(both.with_columns(replicates=counts))
    paths_plot(both)
    of_both, of_single = (
        [text.get_text() for text in figure.legends[0].get_texts()] for figure in drawn
    )
    assert of_both == ["a", "b (one run)"]
    assert of_single == ["a", "b"]


def test_a_path_runs_where_its_scores_are() -> None:
    """A falling path goes from upper left to lower right, a rising one does not."""
    for last, sign in ((20, 1), (90, -1)):
        png = paths_plot(scores("a", (10, 55), (60, last)))
        rgb = np.round(np.array(to_rgb(COLOURS[0])) * 255)
        rows, columns = np.nonzero((pixels(png) == rgb).all(-1))
        middle = columns < 720  # left of the legend
        assert np.corrcoef(rows[middle], columns[middle])[0, 1] * sign > 0.9


def test_the_order_of_rows_changes_nothing() -> None:
    both = pl.concat([scores("a", (10, 90), (30, 80), (50, 60)), scores("b", (10, 90), (20, 85))])
    assert paths_plot(both) == paths_plot(both.reverse())


def test_undefined_scores_are_left_out_and_an_experiment_without_any_is_noted() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nothing = paths_plot(scores("held_out_nothing", (10, None), (20, None)))
        other = paths_plot(scores("of_another_name", (10, None), (20, None)))
    assert count(nothing, COLOURS[0]) == 0
    assert nothing != other  # the note names it

    shown = scores("a", (10, 90), (30, 80))
    assert paths_plot(pl.concat([shown, scores("b", (10, None))])) != paths_plot(shown)


@pytest.mark.parametrize("points", [[(0, 0)], [(50, 50)], [(0, 0), (100, 100)], [(5, 5), (5, 5)]])
def test_extreme_scores_are_drawn_without_a_warning(points: list[tuple[float, float]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert count(paths_plot(scores("a", *points)), COLOURS[0]) > 50


def test_many_stages_and_many_experiments_are_drawn() -> None:
    many = pl.concat(
        [scores(f"e{i}", *[(10 + t / 4 + i, 90 - t / 4) for t in range(201)]) for i in range(9)]
    )
    png = paths_plot(many)
    assert all(count(png, colour) > 200 for colour in COLOURS)


def test_an_experiment_alone_needs_no_name() -> None:
    assert count(paths_plot(scores("a", (10, 90), (30, 80)).drop("experiment")), COLOURS[0]) > 200


def test_the_cells_of_a_heat_map_have_the_colours_of_their_values() -> None:
    rows = [
        ("adaptation", "a", 0, 20.0),
        ("adaptation", "a", 1, 80.0),
        ("held_out", "b", 0, 50.0),
        ("held_out", "b", 1, 35.0),
    ]
    png = heat_map(evaluations(*rows))
    for _, _, _, value in rows:
        assert count(png, matplotlib.colormaps["cividis"]((value - 20) / 60)[:3]) > 2000


def test_only_scores_are_in_a_heat_map_and_a_missing_one_is_white() -> None:
    rows = [("adaptation", "a", stage, float(stage)) for stage in range(3)]
    whole = evaluations(*rows)
    top5 = whole.with_columns(metric=pl.lit("top5"), value=pl.lit(99.0))
    assert heat_map(pl.concat([whole, top5])) == heat_map(whole)

    missing = evaluations(rows[0], rows[2], ("adaptation", "b", 1, 1.0))
    complete = pl.concat([whole, evaluations(*[("adaptation", "b", s, 1.0) for s in range(3)])])
    assert count(heat_map(missing), "white") > count(heat_map(complete), "white") + 3 * 1000


def test_a_heat_map_says_what_guessing_scores_beside_each_dataset(monkeypatch) -> None:
    monkeypatch.setattr(plots, "png", lambda figure: figure)
    rows = evaluations(("adaptation", "a", 0, 20.0), ("adaptation", "b", 0, 30.0))
    chance = rows.head(1).with_columns(metric=pl.lit("chance"), value=pl.lit(100 / 22))
    figure = heat_map(pl.concat([rows, chance]))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["a (chance 4.55)", "b"]


@pytest.mark.parametrize(("datasets", "stages"), [(1, 1), (1, 22), (63, 3), (3, 201)])
def test_a_heat_map_of_any_size_is_drawn(datasets: int, stages: int) -> None:
    rows = [
        ("held_out" if d % 3 == 2 else "adaptation", f"d{d}", stage, 50.0)
        for d in range(datasets)
        for stage in range(stages)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        width, height = Image.open(io.BytesIO(heat_map(evaluations(*rows)))).size
    assert 600 < width < 2000
    assert height > 25 * datasets


def test_the_same_scores_give_the_same_bytes() -> None:
    rows = scores("a", (10, 90), (30, 80))
    cells = evaluations(("adaptation", "a", 0, 1.0), ("held_out", "b", 0, 2.0))
    assert paths_plot(rows) == paths_plot(rows)
    assert heat_map(cells) == heat_map(cells.reverse())


def test_no_score_is_an_error() -> None:
    with pytest.raises(InputError, match="'quickstart' has no score"):
        heat_map(evaluations(), "quickstart")


def test_drawing_loads_neither_pyplot_nor_torch() -> None:
    code = (
        "import sys, fomo_dagster.plots.scores, fomo_dagster.plots.training\n"
        "import fomo_dagster.plots.contact_sheet, fomo_dagster.tables.results\n"
        "assert not {'matplotlib.pyplot', 'torch', 'dagster'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
