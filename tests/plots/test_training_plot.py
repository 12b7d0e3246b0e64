import io
import warnings

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from PIL import Image

from fomo_dagster.errors import InputError
from fomo_dagster.plots.figure import COLOURS
from fomo_dagster.plots.training import SMOOTHED_FROM, running_mean, training_plot

pytestmark = pytest.mark.slow


def steps(count: int, stages: int = 1) -> pl.DataFrame:
    t = np.arange(count * stages)
    return pl.DataFrame(
        {
            "stage": t // count + 1,
            "loss": 3 - t / len(t),
            "learning_rate": 1e-5 * (1 + np.cos(t)),
            "samples_per_second": 900 + np.sin(t),
        }
    )


def rows_of(png: bytes, colour: str) -> np.ndarray:
    """The rows of the picture, for each of its columns from the left, where that colour is."""
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    rgb = np.round(np.array(to_rgb(colour)) * 255).astype(np.uint8)
    columns, rows = np.nonzero((image == rgb).all(-1).T)
    assert len(columns) > 20
    return np.array([rows[columns == column].mean() for column in np.unique(columns)])


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30),
    st.integers(1, 40),
)
def test_running_mean_is_the_mean_of_the_last_values(values: list[float], window: int) -> None:
    expected = [np.mean(values[max(0, i - window + 1) : i + 1]) for i in range(len(values))]
    np.testing.assert_allclose(running_mean(np.array(values), window), expected, atol=1e-9)


@pytest.mark.parametrize("count", [20, 300])
def test_a_falling_loss_falls_in_the_picture_and_the_three_panels_stand_in_order(
    count: int,
) -> None:
    png = training_plot(steps(count))
    loss, rate, throughput = (rows_of(png, colour) for colour in COLOURS[:3])
    assert np.all(np.diff(loss) >= -1)
    assert loss[-1] > loss[0] + 100
    assert loss.max() < rate.min() < rate.max() < throughput.min()


def test_a_stage_that_begins_is_not_joined_to_the_one_before() -> None:
    two = steps(40, 2).with_columns(loss=pl.when(pl.col("stage") == 1).then(1.0).otherwise(2.0))
    joined = two.drop("stage")
    heights = [
        len(np.unique(np.round(rows_of(training_plot(f), COLOURS[0])))) for f in (two, joined)
    ]
    assert heights[0] < heights[1]


@pytest.mark.parametrize("count", [1, 2, SMOOTHED_FROM - 1, SMOOTHED_FROM, 5000])
def test_any_number_of_steps_is_drawn(count: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert training_plot(steps(count), "stage 1: $5") == training_plot(
            steps(count), "stage 1: $5"
        )


def test_no_step_is_an_error() -> None:
    with pytest.raises(InputError, match="'stage 2' has no steps"):
        training_plot(steps(1).clear(), "stage 2")
