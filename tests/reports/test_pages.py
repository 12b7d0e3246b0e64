"""The page and the folder of a report that is written by hand."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import polars as pl
import pytest
from PIL import Image

from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.plots.figure import new_figure
from fomo_dagster.reports.content import (
    Figure,
    Fold,
    Pictures,
    Report,
    Section,
    Source,
    Table,
    Tile,
)
from fomo_dagster.reports.html import as_html
from fomo_dagster.reports.writing import write_report

pytestmark = pytest.mark.slow

ODD = '<b>_&_"100"%\'日本'
FRAME = pl.DataFrame({"method": [ODD, "b"], "GM": [1.234567, None]})
SOURCE = Source(f"SELECT '{ODD}'", "fomo results b", {"b/scores": "d" * 32})


class Read(HTMLParser):
    """The elements that are open, ids, addresses, and the texts of cells."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.addresses, self.cells, self.tags = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.tags.append(tag)
        self.ids += [named["id"]] if "id" in named else []
        self.addresses += [named[key] for key in ("href", "xlink:href", "src") if key in named]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in ("meta", "img"):
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th", "strong"):
            self.cells.append(data)


def drawn():
    figure = new_figure(3, 2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], label=ODD)
    axes.set_title(ODD, parse_math=False)
    return figure


def report(*blocks, title=ODD):
    return Report(title, "2026-03-04 05:06", f"fomo report {ODD}", [ODD],
                  [Section("s", ODD, blocks)])  # fmt: skip


def test_odd_names_are_text_and_the_page_is_whole_by_itself():
    table = Table("t", ODD, FRAME, FRAME, SOURCE, best={"GM": [0]})
    tile = Tile(Image.new("RGB", (8, 8)), ODD, ODD)
    figures = [Figure(name, ODD, drawn(), SOURCE) for name in ("f", "g")]
    blocks = [ODD, (ODD, ODD), Fold(ODD, [table]), *figures, Pictures(ODD, [tile], SOURCE)]
    page = as_html(report(*blocks))
    read = Read()
    read.feed(page)
    assert not read.open  # what is opened is closed, in order
    assert read.cells == ["method", "GM", ODD, "1.23", "b"]
    assert "<b>_" not in page
    assert not {"script", "link", "iframe"} & set(read.tags)
    assert all(one.startswith(("#", "data:image/jpeg;base64,")) for one in read.addresses)
    assert len(read.ids) == len(set(read.ids))
    assert {one[1:] for one in read.addresses if one[0] == "#"} <= set(read.ids)
    assert page.count("url(") == page.count("url(#f")


def test_the_same_report_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_report(report(Figure("f", "", drawn(), SOURCE)), tmp_path / name)
    for path in (tmp_path / "one").rglob("*.*"):
        assert (
            path.read_bytes()
            == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
        )


def test_a_report_replaces_its_own_files_and_no_others(tmp_path):
    table = Table("t", "", FRAME, FRAME, SOURCE)
    (tmp_path / "notes.txt").write_text("mine")
    first = write_report(report(table), tmp_path)
    assert first.added == ["report.html", "tables/t.csv", "tables/t.tex"]
    assert pl.read_csv(tmp_path / "tables" / "t.csv").rows() == FRAME.rows()
    second = write_report(report("nothing"), tmp_path)
    assert (second.replaced, second.removed) == (["report.html"], ["tables/t.csv", "tables/t.tex"])
    assert second.sentence.endswith("report.html: 1 file (1 replaced, 2 removed)")
    there = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert there == {"notes.txt", "report.html", "report.json"}

    (tmp_path / "tables" / "t.csv").write_text("by hand")
    before = (tmp_path / "report.html").read_bytes()
    with pytest.raises(InputError, match=r"t\.csv is no report's, or was changed .*\(--to\)"):
        write_report(report(table), tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    assert not (tmp_path / "tables" / "t.tex").exists()


def test_what_an_interrupted_report_wrote_is_replaced(tmp_path, monkeypatch):
    from fomo_dagster.reports import writing

    def full_disk(path, data, **named):
        if path.suffix == ".csv":
            raise StoreError("no space left")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)

    table = Table("t", "", FRAME, FRAME, SOURCE)
    with monkeypatch.context() as patched:
        patched.setattr(writing, "write_bytes", full_disk)
        with pytest.raises(StoreError):
            write_report(report(table), tmp_path)
    assert write_report(report(table, title="other"), tmp_path).replaced == ["report.html"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written .* write to another place"):
        write_report(report("nothing"), tmp_path / "file" / "report")
    (tmp_path / "report.json").write_text(json.dumps({"of": "another program"}))
    with pytest.raises(InputError, match=r"report\.json is no report's list"):
        write_report(report("nothing"), tmp_path)


def test_pictures_are_small_and_in_the_page():
    buffer = Image.new("RGBA", (900, 300), (255, 0, 0, 255))
    page = as_html(report(Pictures("", [Tile(buffer, "", "")], SOURCE)))
    (data,) = re.findall(r"base64,([^\"]+)", page)
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (192, 64)
