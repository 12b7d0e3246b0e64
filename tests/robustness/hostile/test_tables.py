"""Tables of images as programs, people and accidents write them: every row is read, or none is."""

import contextlib
import csv
import io
import json

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fomo_dagster.data.sources.files import DigestCache
from fomo_dagster.data.sources.manifest import ManifestImages, ManifestSource
from fomo_dagster.data.sources.rows import read_rows
from fomo_dagster.data.sources.tables import TableFormat
from fomo_dagster.errors import DataError
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.nodes.shards import QUARANTINE
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext

pytestmark = pytest.mark.slow

HEADER = "path,concept,caption\n"


def read(folder, content, suffix=".csv", **form):
    """(place, path, concept, captions) of the rows of a table with this content."""
    path = folder / f"table{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    rows = read_rows(path, ["path", "concept"], ["caption"], TableFormat(**form))
    return rows.frame.rows()


SPARK = HEADER + (
    'a.png,x,"text with \\" escaped quote"\nb.png,y,where did I go\nc.png,z,"also \\" missing"\n'
)
MYSQL = 'a.png,x,\\N\nb.png,y,"C:\\dir \\"q\\" \\\\"\nc.png,z,two\\\nlines\nd.png,w,a\\,b\n'
READ = {
    "quotes after backslashes": (
        SPARK, {"quoting": "backslash"},
        [(2, "a.png", "x", ['text with " escaped quote']),
         (3, "b.png", "y", ["where did I go"]), (4, "c.png", "z", ['also " missing'])],
    ),
    "all that backslashes escape": (
        HEADER + MYSQL, {"quoting": "backslash"},
        [(2, "a.png", "x", []), (3, "b.png", "y", ['C:\\dir "q" \\']),
         (4, "c.png", "z", ["two\nlines"]), (6, "d.png", "w", ["a,b"])],
    ),
    "an escaped line end at the end": (
        HEADER + "a.png,x,1\nb.png,y,2\\\n", {"quoting": "backslash"},
        [(2, "a.png", "x", ["1"]), (3, "b.png", "y", ["2\n"])],
    ),
    "quotes that are letters": (
        HEADER + 'a.png,x,"Hi" she said\nb.png,y,12" wheel\n', {"quoting": "none"},
        [(2, "a.png", "x", ['"Hi" she said']), (3, "b.png", "y", ['12" wheel'])],
    ),
    "a quote inside an unquoted text": (
        HEADER + "a.png,x,12\" wheel\nb.png,y,it's\n", {},
        [(2, "a.png", "x", ['12" wheel']), (3, "b.png", "y", ["it's"])],
    ),
    "texts of several lines": (
        HEADER + 'a.png,x,"one\ntwo, three\n\nfour"\r\nb.png,y,"a ""b""\r\n"\n', {},
        [(2, "a.png", "x", ["one\ntwo, three\n\nfour"]), (6, "b.png", "y", ['a "b"\r\n'])],
    ),
    "a text of several lines before the path": (
        'caption,concept,path\n"one\ntwo, x",y,b.png\n', {}, [(2, "b.png", "y", ["one\ntwo, x"])]
    ),
    "lines that end as on old Macs": (
        HEADER.replace("\n", "\r") + "a.png,x,1\rb.png,y,2", {},
        [(2, "a.png", "x", ["1"]), (3, "b.png", "y", ["2"])],
    ),
    "blank lines, and none at the end": (
        HEADER + "\n  \na.png,x,1\r\n\r\nb.png,y,2", {},
        [(4, "a.png", "x", ["1"]), (6, "b.png", "y", ["2"])],
    ),
    "semicolons": ("path;concept\na,b.png;x\n", {}, [(2, "a,b.png", "x")]),
    "tabs in a .csv": ("path\tconcept\tnote\na.png\tx, y\t\n", {}, [(2, "a.png", "x, y")]),
    "a line that tells Excel": ("sep=|\npath|concept\na.png|x\n", {}, [(3, "a.png", "x")]),
    "another separator": ("path#concept\na.png#x\n", {"separator": "#"}, [(2, "a.png", "x")]),
    "quoted blanks and quotes": (
        HEADER + 'a.png," ""x""",1\n', {}, [(2, "a.png", ' "x"', ["1"])]
    ),
    "characters of no width in the header": (
        "path,\u200bconcept,\u00a0caption\na.png,x,1\n", {}, [(2, "a.png", "x", ["1"])]
    ),
    "blanks in the header": ("path, concept ,caption\na.png,x,\n", {}, [(2, "a.png", "x", [])]),
    "names that look like something else": (
        "path,concept\n" + "".join(f"{n}.png,{n}\n" for n in ("007", "NA", "null", "1e5", "true")),
        {}, [(i + 2, f"{n}.png", n) for i, n in enumerate(("007", "NA", "null", "1e5", "true"))],
    ),
    "a mark of UTF-8": ("\ufeff" + HEADER + "a.png,x,é\n", {}, [(2, "a.png", "x", ["é"])]),
    "UTF-16": ((HEADER + "a.png,x,é\n").encode("utf-16"), {}, [(2, "a.png", "x", ["é"])]),
    "a declared encoding": (
        (HEADER + "a.png,x,é\n").encode("latin-1"), {"encoding": "latin-1"},
        [(2, "a.png", "x", ["é"])],
    ),
    "a field longer than Python's limit": (
        HEADER + f"a.png,x,{'y' * 200_000}\n", {}, [(2, "a.png", "x", ["y" * 200_000])]
    ),
    "a line separator of Unicode": (
        HEADER + "a.png,x,one\u2028two\x85three\n", {},
        [(2, "a.png", "x", ["one\u2028two\x85three"])],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_a_csv_table_brings_its_rows(tmp_path, case):
    content, form, rows = READ[case]
    assert read(tmp_path, content, **form) == rows


REFUSED = {
    "quotes after backslashes": (SPARK, {}, r"line 2 of .* `quoting: backslash`"),
    "a backslash quote at the end of a text": (
        HEADER + 'a.png,x,"say \\""\nb.png,y,12" \nc.png,z,"ok"\n', {}, "line 2 .* backslash`"
    ),
    "a backslash quote in an unquoted text": (
        HEADER + 'a.png,x,ok\nb.png,y,5\\" wheel\n', {}, "line 3 .* `quoting: backslash`"
    ),
    "a comma after a backslash": (
        HEADER + "a.png,x,one\\, two\n", {}, "line 2 .* 4 fields.* `quoting: backslash`"
    ),
    "text after a quoted text": (
        HEADER + 'a.png,x,ok\nb.png,y,"Hi" she said\n', {}, "line 3 .* `quoting` .none where"
    ),
    "a quoted text that never ends": (
        HEADER + 'a.png,x,ok\nb.png,y,"Hi\nc.png,z,ok\n', {}, "line 3 .* never ends"
    ),
    "a stray quote that swallows a row": (
        HEADER + 'a.png,x,ok\nb.png,y,"unclosed\nc.png,z,12"\n', {}, "line 3 .* may be records"
    ),
    "a stray quote that swallows rows behind a comma": (
        HEADER + 'a.png,x,"not, closed\nb.png,y,\nc.png,z,12"\n', {}, "line 2 .* may be records"
    ),
    "a stray quote among images without suffixes": (
        HEADER + 'a,x,ok\nb,y,"unclosed\nc,z,12"\n', {}, "line 3 .* may be records"
    ),
    "a stray quote before the path": (
        'caption,concept,path\n"not closed,x,a.png\n12",z,b.png\n', {}, "line 2 .* may be records"
    ),
    "a quote that is doubled where backslashes escape": (
        HEADER + 'a.png,x,"a ""b"""\n', {"quoting": "backslash"}, "line 2 .* another `quoting`"
    ),
    "a quote after a blank": (
        HEADER + 'a.png,x,ok\nb.png, "y", "z"\n', {}, "line 3 .* quote after a blank.* `quoting`"
    ),
    "a quote after a blank in the header": ('path, "concept"\na.png, "x"\n', {}, "line 1 .* blank"),
    "a database's missing value": (
        HEADER + "a.png,x,ok\nb.png,y,\\N\n", {}, r"line 3 .* field .N.* `quoting`"
    ),
    "a comma too many": (HEADER + "a.png,x,1\nb.png,y,2,3\n", {}, "line 3 .* 4 fields, .* 3"),
    "a last line cut short": (HEADER + "a.png,x,1\nb.png,y", {}, "line 3 .* 2 fields"),
    "a comment": (HEADER + "# from a camera\na.png,x,1\n", {}, "line 2 .* 1 fields"),
    "a comment before the header": ("# from a camera\n" + HEADER, {}, "no column 'path'"),
    "two columns of one name": ("path,concept,path\na.png,x,b\n", {}, "two columns 'path'"),
    "two possible separators": (
        "path;caption,path,concept;concept;concept,concept\n", {},
        "commas or semicolons: declare its `separator`",
    ),
    "bytes that are no text": (HEADER.encode() + b"a.png,x,\xe9\n", {}, "line 2 .* `encoding`"),
    "UTF-16 without a mark": ((HEADER).encode("utf-16-le"), {}, "line 1 .* NUL .*utf-16"),
    "a NUL": (HEADER + "a.png,x,\0\n", {}, "line 2 .* NUL"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_csv_table_that_could_be_misread_is_refused_with_its_line(tmp_path, case):
    content, form, said = REFUSED[case]
    with pytest.raises(DataError, match=said):
        read(tmp_path, content, **form)


LETTERS = st.text(st.sampled_from('ab",;\t\n\r\\ é'), max_size=8)
WRITTEN = {
    "doubled": {"doublequote": True},
    "backslash": {"doublequote": False, "escapechar": "\\", "quoting": csv.QUOTE_ALL},
    "backslash without quotes": {"escapechar": "\\", "quoting": csv.QUOTE_NONE},
}


@pytest.mark.parametrize("way", WRITTEN)
@given(captions=st.lists(LETTERS, min_size=1, max_size=5), separator=st.sampled_from(",;\t|"))
def test_what_a_csv_writer_writes_is_read_back(tmp_path_factory, way, captions, separator):
    table = io.StringIO()
    writer = csv.writer(table, delimiter=separator, **WRITTEN[way])
    writer.writerows([["path", "concept", "caption"], *([f"{i}.png", "x", caption]
                     for i, caption in enumerate(captions))])  # fmt: skip
    folder = tmp_path_factory.getbasetemp()
    rows = read(folder, table.getvalue(), quoting=way.partition(" ")[0])
    assert [row[3] for row in rows] == [[c] if c.strip() else [] for c in captions]


@given(damage=st.lists(st.sampled_from(',"\\\n\r'), max_size=4), where=st.integers(0, 92))
@example(damage=[",", "\\", ",", "\n"], where=1)
def test_damage_refuses_a_table_or_leaves_its_rows(tmp_path_factory, damage, where):
    """Two separators can make a record of what stands around them, which nobody can tell."""
    plain = "".join(f"{i}.png,x,a caption of {i}\n" for i in range(4))
    damaged = plain[:where] + "".join(damage) + plain[where:]
    with contextlib.suppress(DataError):
        rows = len(read(tmp_path_factory.getbasetemp(), HEADER + damaged))
        assert rows == 4 or (rows == 5 and damage.count(",") >= 2)


LINES = {
    "a key twice": ('{"path": "a.png", "concept": "x", "path": "b.png"}\n', "line 1 .* 'path'"),
    "a row cut short": ('{"path": "a.png", "concept": "x"}\n{"path": "b', "line 2 .* not JSON"),
    "deep nesting": ('{"path": ' + "[" * 100_000, "line 1 .* nested"),
    "a number without end": ('{"path": "a.png", "n": ' + "1" * 5000 + "}", "line 1 .* not JSON"),
    "no number": ('{"path": "a.png", "concept": NaN}', "'concept' in line 1 .* not nan"),
    "a null in a path": ('{"path": "a\\u0000.png", "concept": "x"}', "'path' .* in line 1"),
    "a null in a class": ('\n{"path": "a.png", "concept": "\\u0000"}', "'concept' .* in line 2"),
    "all rows in a list": ('[{"path": "a.png"}]', "line 1 .* write one a line"),
    "a row over several lines": ('{\n"path": "a.png"}', "line 1 .* not JSON"),
    "two rows in a line": ('{"path": "a.png"} {"path": "b.png"}', "line 1 .* not JSON"),
}


@pytest.mark.parametrize("case", LINES)
def test_json_lines_that_are_none_are_refused_with_their_line(tmp_path, case):
    content, said = LINES[case]
    with pytest.raises(DataError, match=said):
        read(tmp_path, content, ".jsonl")


def test_json_lines_may_have_blank_lines_marks_and_pairs_of_surrogates(tmp_path):
    content = '\ufeff\n{"path": "a.png", "concept": "\\ud83d\\ude00"}\r\n\n'
    assert read(tmp_path, content, ".jsonl") == [(2, "a.png", "😀")]


PARQUET = {
    "categories": pl.Series(["x"], dtype=pl.Categorical),
    "an enumeration": pl.Series(["x"], dtype=pl.Enum(["x"])),
}


@pytest.mark.parametrize("case", PARQUET)
def test_parquet_columns_of_other_text_types_are_text(tmp_path, case):
    file = tmp_path / "table.parquet"
    of_lists = pl.Series([["x", None, ""]], dtype=pl.List(pl.String))
    for caption in (PARQUET[case], of_lists, of_lists.list.to_array(3)):
        table = {"path": ["a.png"], "concept": PARQUET[case], "caption": caption}
        pl.DataFrame(table).write_parquet(file)
        rows = read_rows(file, ["path", "concept"], ["caption"], TableFormat())
        assert rows.frame.rows() == [(1, "a.png", "x", ["x"])]
    pl.DataFrame(table | {"concept": [b"x"]}).write_parquet(file)
    with pytest.raises(DataError, match=r"'concept' of .* must be text, not Binary"):
        read_rows(file, ["path", "concept"], [], TableFormat())


def test_no_path_of_a_parquet_table_is_a_pattern(tmp_path):
    folder = tmp_path / "data [v2]" / "split=train"
    folder.mkdir(parents=True)
    for name in ("t[1]", "t1", "t*", "{t1}"):
        pl.DataFrame({"path": [name], "concept": ["x"]}).write_parquet(folder / f"{name}.parquet")
    for name in ("t[1]", "t1", "t*", "{t1}"):
        rows = read_rows(folder / f"{name}.parquet", ["path", "concept"], ["split"], TableFormat())
        assert rows.frame.rows() == [(1, name, "x")]


def half_a_character():
    texts = pa.array([b"a.png", b"\xed\xa0\xbd.png"]).view(pa.string())
    file = io.BytesIO()
    pq.write_table(pa.table({"path": texts, "concept": texts}), file)
    return file.getvalue()


UNREADABLE = {
    "nothing": b"",
    "a CSV": b"path,concept\na.png,x\n",
    "cut short": half_a_character()[:-9],
    "half a character": half_a_character(),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_parquet_table_that_is_none_is_refused_in_a_sentence(tmp_path, case):
    file = tmp_path / "table.parquet"
    file.write_bytes(UNREADABLE[case])
    with pytest.raises(DataError, match=r"table\.parquet cannot be read as a table: \S"):
        read_rows(file, ["path", "concept"], [], TableFormat())


def test_damage_refuses_a_parquet_table_or_leaves_its_rows(tmp_path):
    file = tmp_path / "table.parquet"
    paths = [f"{number}.png" for number in range(99)]
    pl.DataFrame({"path": paths, "concept": paths}).write_parquet(file, compression="uncompressed")
    content, refused = file.read_bytes(), 0
    for place in range(4, len(content), 3):  # at some of which Polars aborts the process
        spoiled = bytearray(content)
        spoiled[place] ^= 0x10 if place % 2 else 0x01
        file.write_bytes(spoiled)
        try:
            rows = read_rows(file, ["path", "concept"], [], TableFormat())
        except DataError:
            refused += 1
        else:
            assert rows.frame.height == 99
    assert refused > 100


def test_a_parquet_column_that_is_there_twice_is_refused(tmp_path):
    file = tmp_path / "table.parquet"
    pq.write_table(pa.table([["a"], ["x"], ["b"]], names=["path", "concept", "path"]), file)
    with pytest.raises(DataError, match="two columns 'path'"):
        read_rows(file, ["path", "concept"], [], TableFormat())


@pytest.fixture
def manifest(tmp_path):
    """`manifest(rows, **declared)`: the images of a table in tmp_path/root/table.jsonl."""
    (tmp_path / "root").mkdir()
    for folder in ("root", "."):
        (tmp_path / folder / "a.png").write_bytes(b"a")

    def opened(rows, **declared):
        table = tmp_path / "root" / "table.jsonl"
        table.write_text("\n".join(map(json.dumps, rows)))
        source = ManifestSource(path=table, test_share=0, **declared)
        return ManifestImages(
            table, table.parent, form=source, allow_outside=source.allow_outside,
            split_rule=source.split_rule, one_concept=None,
            cache=DigestCache(tmp_path / "cache.parquet"),
        )  # fmt: skip

    return opened


def linked(folder, name, target):
    (folder / "root" / name).symlink_to(target)
    return name


OUTSIDE = {
    "a way up": lambda folder: "../a.png",
    "a way up and elsewhere": lambda folder: "b/../../root2/a.png",
    "another place": lambda folder: str(folder / "a.png"),
    "a link to a file": lambda folder: linked(folder, "link.png", folder / "a.png"),
    "a link to a folder": lambda folder: linked(folder, "up", "..") + "/a.png",
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_a_table_reads_outside_its_root_only_where_that_is_allowed(tmp_path, manifest, case):
    (tmp_path / "root2").mkdir()
    (tmp_path / "root2" / "a.png").write_bytes(b"a")
    (tmp_path / "root" / "b").mkdir()
    rows = [{"path": "a.png", "concept": "x"}, {"path": OUTSIDE[case](tmp_path), "concept": "x"}]
    with pytest.raises(DataError, match=r"1 of 2 paths .* in line 2: .*`allow_outside: true`"):
        manifest(rows).scan()
    assert manifest(rows, allow_outside=True).scan().height == 2


def test_a_table_may_write_places_inside_its_root_in_any_way(tmp_path, manifest):
    linked(tmp_path, "link.png", "a.png")
    (tmp_path / "root" / "b").mkdir()
    names = ["a.png", "b/../a.png", str(tmp_path / "root" / "a.png"), "link.png"]
    rows = [{"path": name, "concept": "x", "key": str(i)} for i, name in enumerate(names)]
    assert manifest(rows).scan().height == 4


def test_columns_that_are_not_read_are_said(manifest):
    rows = [{"path": "a.png", "concept": "x", "caption": "1", "text": "2", "url": None}]
    (said,) = manifest(rows).inspect().warnings
    assert said.endswith("columns that are not read: 'text', 'url'")


def spark(project):
    """The captions of a dataset as Spark writes them."""
    path = project.root / "datasets/toy.yaml"
    rows = "".join(f'train/robin/{i}.png,"a \\"robin\\""\n' for i in range(3))
    (project.root / "datasets/captions.csv").write_text("path,caption\n" + rows)
    declared = path.read_text().replace(
        "type: folder\n", "captions: captions.csv\n    type: folder\n", 1
    )
    path.write_text(declared)


def declared(**form):
    """A dataset's captions, read in another form."""

    def change(project):
        source = {"type": "folder", "path": "../images/old", "captions": "c.csv", **form}
        project.write("toy", datasets={"own": {"source": source}})

    return change


def arriving(**settings):
    """A stream that grows by a table as Spark writes it, of images outside its folder."""

    def change(project):
        rows = "".join(
            f'../images/old/{split}/red/{i}.png,red,"a \\"red\\" {i}",{split}\n'
            for split in ("train", "test")
            for i in range(2)
        )
        (project.root / "incoming").mkdir()
        (project.root / "incoming/1.csv").write_text("path,concept,caption,split\n" + rows)
        stream = {"name": "live", "growing": "../incoming", "arriving": settings}
        project.write("toy", stream=stream)

    return change


CASES = {
    "an arrival as Spark writes it": (arriving(), ["plan", "toy"], 1, ["`quoting: backslash`"]),
    "an arrival of images elsewhere": (
        arriving(quoting="backslash"), ["plan", "toy"], 1, ["4 of 4 paths", "allow_outside: true"],
    ),
    "an arrival that is read as it is declared": (
        arriving(quoting="backslash", allow_outside=True), ["plan", "toy"], 0, ["live_1"],
    ),
    "captions as Spark writes them": (
        spark, ["plan", "toy"], 1, ["line 2 of", "captions.csv", "`quoting: backslash`"],
    ),
    "captions between the wrong marks": (
        declared(separator='"'), ["plan", "toy"], 2,
        ["toy.yaml", "separator", "no quote, backslash or line end"],
    ),
    "an encoding that there is not": (
        declared(encoding="utf-9"), ["plan", "toy"], 2, ["toy.yaml", "encoding", "utf-9", "cp1252"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_table_ends_a_command_in_a_sentence(ends, case):
    ends(*CASES[case])


def test_a_row_with_half_a_character_counts_as_unreadable(project):
    rows = [
        {"path": f"old/train/red/{i}.png", "concept": "red", "split": split, "caption": text}
        for i, split, text in ((0, "train", "x"), (1, "test", "y"), (2, "train", "\ud83d"))
    ]
    (project.root / "images/table.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = {"type": "manifest", "path": "../images/table.jsonl"}

    def shards(limit):
        own = {"source": source, "unreadable_limit": limit}
        project.write("toy", datasets={"own": own}, evaluation={"held_out": ["own"]})
        context = RunContext(project.graph(), project.home)
        return materialise("shards/own", context).artifacts[ONLY]

    with pytest.raises(DataError, match=r"1 of 3 images .33.33%.*'caption' in line 3 of .*table"):
        shards(limit=0.3)
    left_out = pl.read_parquet(shards(limit=0.4).path(QUARANTINE))
    assert left_out["key"].to_list() == ["old/train/red/2.png"]
