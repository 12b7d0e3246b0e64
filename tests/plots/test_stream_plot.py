"""The picture of a stream is drawn for few concepts and for many, with and without a figure."""

import io

import numpy as np
import polars as pl
import pytest
from PIL import Image

from fomo_dagster.plots.stream import stream_plot

pytestmark = pytest.mark.slow


def order_of(datasets, figures):
    count = len(datasets)
    return pl.DataFrame(
        {
            "position": range(1, count + 1),
            "dataset": datasets,
            "concept": [str(number) for number in range(count)],
            "figure": figures,
        },
        schema_overrides={"figure": pl.Float64},
    )


def pixels(order, name):
    return np.asarray(Image.open(io.BytesIO(stream_plot(order, name))).convert("RGB"))


def coloured(image, colour):
    """Columns with a pixel of that colour, but for rounding."""
    near = (np.abs(image.astype(int) - colour) <= 2).all(axis=2)
    return np.flatnonzero(near.any(axis=0))


def test_bands_stand_where_their_datasets_do():
    order = order_of(["one"] * 3 + ["two"] * 3, [None] * 6)
    image = pixels(order, None)
    first, second = coloured(image, (0x00, 0x72, 0xB2)), coloured(image, (0xD5, 0x5E, 0x00))
    assert first.max() < second.min() + 2
    assert abs(len(first) - len(second)) <= 2


@pytest.mark.parametrize(("concepts", "datasets"), [(1, 1), (5, 2), (18381, 41), (900, 80)])
@pytest.mark.parametrize("known", [0, 1, 2])
def test_streams_of_any_size_are_drawn_alike_each_time(concepts, datasets, known):
    names = [f"dataset_{number % datasets}" for number in range(concepts)]
    figures = [float(n * 7 % 101) if known and n % known == 0 else None for n in range(concepts)]
    order = order_of(names, figures)
    image = pixels(order, "accuracy (%)")
    assert image.shape[1] > 800
    assert image.shape[0] < 2000
    assert (image != 255).any()


def test_figures_that_span_magnitudes_and_some_that_are_missing_are_drawn():
    order = order_of(["one"] * 400, [None, *(float(10**6 - n**2) for n in range(399))])
    assert not np.array_equal(pixels(order, "captions"), pixels(order, None))
