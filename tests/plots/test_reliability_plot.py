"""Reliability diagrams: a panel for each dataset, and a curve for each label."""

import polars as pl
import pytest
from matplotlib.figure import Figure

from fomo_dagster.plots import reliability
from fomo_dagster.plots.reliability import MOST_PANELS, reliability_plot

BINS = pl.DataFrame({"confidence": [0.3, 0.8], "accuracy": [0.2, 0.9], "images": [5, 15]})


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn."""
    figures = []
    monkeypatch.setattr(reliability, "png", lambda figure: figures.append(figure) or b"")
    return figures


def panels_of(figure: Figure):
    return [axes for axes in figure.axes if axes.get_visible()]


def test_each_dataset_has_a_panel_with_all_its_curves(drawn):
    reliability_plot({"birds": {"before": BINS, "after": BINS}, "$cats": {"before": BINS}})
    birds, cats = panels_of(drawn[0])
    assert [birds.get_title("left"), cats.get_title("left")] == ["birds", "$cats"]
    curves = [line.get_ydata().tolist() for line in birds.lines]
    assert curves == [[0, 1], [0.2, 0.9], [0.2, 0.9]]  # first the diagonal
    sizes = birds.collections[0].get_sizes()
    assert sizes[1] > sizes[0]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["before", "after"]


def test_a_label_that_the_first_panel_lacks_is_told_and_looks_alike_everywhere(drawn):
    curves = {"before": BINS, "after": BINS}
    reliability_plot({"birds": {"before": BINS}, "cats": curves, "old": {"after": BINS}})
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["before", "after"]
    birds, cats, old = ([line.get_color() for line in p.lines[1:]] for p in panels_of(drawn[0]))
    assert birds + old == cats
    assert len(set(cats)) == 2


def test_more_datasets_than_fit_are_counted(drawn):
    reliability_plot({f"d{i}": {"a": BINS} for i in range(MOST_PANELS + 3)})
    assert len(panels_of(drawn[0])) == MOST_PANELS
    assert "without 3 more datasets" in drawn[0].get_suptitle()
    assert not drawn[0].legends  # of one curve


def test_the_picture_is_a_png_also_of_bins_without_images():
    assert reliability_plot({"birds": {"a": BINS.clear()}}).startswith(b"\x89PNG")
