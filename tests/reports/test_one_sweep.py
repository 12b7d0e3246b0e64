"""The name of a sweep in the report about its methods."""

import polars as pl
import pytest

from fomo_dagster.plots.figure import new_figure
from fomo_dagster.reports.content import Figure, Fold, Report, Section, Source, Table
from fomo_dagster.reports.html import as_html
from fomo_dagster.reports.one_sweep import without_name_of

pytestmark = pytest.mark.slow

SOURCE = Source("SELECT 'rates_low'", "fomo results rates_low", {"rates_low/scores": "d" * 32})
NAMES = ["rates_low", "rates_low_lora", "rates_low_seed_0"]


def drawn():
    figure = new_figure(4, 3)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], label="rates_low_lora")
    axes.set_title("rates_low")
    axes.set_yticks([0, 1], ["rates_low", "birates_low"])
    axes.set_xticks([0, 1])
    axes.legend()
    return figure


def test_it_is_left_out_of_what_is_read_and_of_nothing_else():
    data = pl.DataFrame({"method": ["rates_low", None], "rates_low_lora": ["1", "rates_of"]})
    table = Table("t", "of rates_low", data, data, SOURCE, ["rates_low_lora", "not shown"],
                  {"rates_low_lora": [0]})  # fmt: skip
    blocks = ["rates_low_seed_0, rates_low2", ("my_rates_low",), Fold("rates_low", [table]),
              Figure("f", "rates_low_lora.", drawn(), SOURCE)]  # fmt: skip
    whole = Report("rates_low", "", "fomo report rates", ["rates_low is"],
                   [Section("s", "Against rates_low", blocks)])  # fmt: skip
    short = without_name_of("rates", NAMES, whole)

    assert (short.title, short.command) == ("low", "fomo report rates")
    assert short.remarks == ["low is", "The names of all methods begin with rates_."]
    (section,) = short.sections
    text, texts, fold, figure = section.blocks
    assert (section.name, section.title) == ("s", "Against low")
    assert (text, texts) == ("low_seed_0, rates_low2", ("my_rates_low",))
    (found,) = fold.blocks
    assert (fold.title, found.name, found.caption) == ("low", "t", "of low")
    assert found.shown.to_dict(as_series=False) == {
        "method": ["low", None], "low_lora": ["1", "rates_of"]
    }  # fmt: skip
    assert (found.numbers, found.best) == (["low_lora"], {"low_lora": [0]})
    assert found.data.equals(data)
    assert found.source is figure.source is SOURCE
    page = as_html(short)
    for label in ("low_lora", "low", "birates_low"):
        assert f">{label}</text>" in page
    assert ">rates_low" not in page


def test_a_method_that_is_called_as_another_column_keeps_its_whole_name():
    data = pl.DataFrame({"low": ["of rates_low"], "rates_low": ["1"]})
    table = Table("t", "", data, data, SOURCE)
    whole = Report("", "", "", [], [Section("s", "", [table])])
    (found,) = without_name_of("rates", NAMES, whole).all_of(Table)
    assert found.shown.to_dict(as_series=False) == {"low": ["of low"], "rates_low": ["1"]}
