"""Values that a terminal, a table or a program that reads the output could take for its own."""

import csv
import io
import json
import os
import subprocess
import sys

import duckdb
import pytest

from fomo_dagster.cli.main import main
from fomo_dagster.cli.output import LONGEST_CELL, printable

pytestmark = pytest.mark.slow


@pytest.fixture
def fomo(project, capsys, monkeypatch):
    """`fomo(*arguments)`: what a command prints and logs."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fomo", *arguments])
        monkeypatch.setenv("COLUMNS", "300")
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        assert not stopped.value.code, printed
        return printed.out

    return run


# What a value is → how a table shows it.
VALUES = {
    "[red]robin[/red]": "[red]robin[/red]",
    "[/x]": "[/x]",
    "[bold": "[bold",
    "\\[b]": "\\[b]",
    ":smile: wren": ":smile: wren",
    "\x1b[31mred\x1b[0m": r"\x1b[31mred\x1b[0m",
    "\x1b]0;owned\x07": r"\x1b]0;owned\x07",
    "\x9b2J": r"\x9b2J",
    "a\rb": r"a\rb",
    "two\nlines": r"two\nlines",
    "tab\there": r"tab\there",
    "\u202eturned": r"\u202eturned",
    "nul\x00": r"nul\x00",
    "größe 👩‍🚀": "größe 👩‍🚀",
}


def quoted(text):
    parts = [f"'{part}'".replace("\n", "' || chr(10) || '") for part in text.split("\x00")]
    return " || chr(0) || ".join(parts)


def test_a_query_shows_values_as_they_are_a_row_a_line(fomo):
    rows = ", ".join(f"({number}, {quoted(text)})" for number, text in enumerate(VALUES))
    text = f'SELECT a AS "[red]a", b FROM (VALUES {rows}) AS t(a, b) ORDER BY a'
    header, *lines = fomo("sql", text).splitlines()
    assert header.split() == ["[red]a", "b"]
    assert [line.strip().split(maxsplit=1)[1] for line in lines] == list(VALUES.values())
    assert [row["b"] for row in json.loads(fomo("sql", text, "--json"))] == list(VALUES)
    assert [row[1] for row in csv.reader(io.StringIO(fomo("sql", text, "--csv")))][1:] == [
        text.replace("\r\n", "\n") for text in VALUES
    ]


# SQL → what the table shows, and what JSON holds.
TYPES = {
    "NULL": ("", None),
    "1.10": ("1.10", 1.1),
    "3e-4::DOUBLE": ("0.0003", 3e-4),
    "'nan'::DOUBLE": ("nan", None),
    "'-inf'::FLOAT": ("-inf", None),
    "['nan'::DOUBLE, 1.5, NULL]": ("[NaN,1.5,null]", [None, 1.5, None]),
    "'NaN \"Infinity'": ('NaN "Infinity', 'NaN "Infinity'),
    "'36893488147419103232'::HUGEINT": ("36893488147419103232", 36893488147419103232),
    "340282366920938463463374607431768211455::UHUGEINT": (
        "340282366920938463463374607431768211455", 340282366920938463463374607431768211455,
    ),
    "(repeat('9', 60))::BIGNUM": ("9" * 60, int("9" * 60)),
    "9999999999999999999999999999.9999999999::DECIMAL(38, 10)": (
        "9999999999999999999999999999.9999999999", 1e28,
    ),
    "'\\xAA\\x00a'::BLOB": (r"\xAA\x00a", r"\xAA\x00a"),
    "INTERVAL '1 month 2 days'": ("1 month 2 days", "1 month 2 days"),
    "DATE '2026-03-04'": ("2026-03-04", "2026-03-04"),
    "'infinity'::DATE": ("infinity", "infinity"),
    "TIMESTAMP '290309-12-22 (BC) 00:00:00'": (
        "290309-12-22 (BC) 00:00:00", "290309-12-22 (BC) 00:00:00",
    ),
    "TIME '24:00:00'": ("24:00:00", "24:00:00"),
    "{'a': [1, 2], 'b': 'x'}": ('{"a":[1,2],"b":"x"}', {"a": [1, 2], "b": "x"}),
    "MAP {'k': 1}": ('{"k":1}', {"k": 1}),
    "'10101'::BIT": ("10101", "10101"),
    "'{\"a\": 1}'::JSON": ('{"a": 1}', {"a": 1}),
    "true": ("True", True),
}  # fmt: skip


def test_every_type_is_shown_and_is_valid_json_and_csv(fomo):
    shown = ", ".join(TYPES)
    text = f"SELECT unnest(range(2)) AS n, {shown}"

    def constant(word):
        pytest.fail(f"{word} is no JSON")

    printed = fomo("sql", text, "--json")
    rows = json.loads(printed, parse_constant=constant)
    assert list(rows[1].values())[1:] == [value for _, value in TYPES.values()]
    assert "9999999999999999999999999999.9999999999" in printed
    _, *lines = csv.reader(io.StringIO(fomo("sql", text, "--csv")))
    told = {"True": "true", "nan": "NaN"}
    assert lines[1][1:] == [told.get(value, value) for value, _ in TYPES.values()]
    for sql, (value, _) in TYPES.items():
        assert fomo("sql", f"SELECT {sql} AS v").splitlines()[1].strip() == value


def test_every_type_that_duckdb_knows_can_be_asked_for(fomo):
    with duckdb.connect() as connection:
        rows = len(connection.sql("FROM test_all_types()").fetchall())
    assert len(json.loads(fomo("sql", "FROM test_all_types()", "--json"))) == rows
    assert len(list(csv.reader(io.StringIO(fomo("sql", "FROM test_all_types()", "--csv"))))) > rows
    assert len(fomo("sql", "FROM test_all_types()").splitlines()) == rows + 1


def test_columns_of_one_name_are_told_apart(fomo):
    text = "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS b"
    assert fomo("sql", text, "--csv").splitlines() == ["a,a_1,a_1_1,b", "1,2,3,4"]
    (row,) = json.loads(fomo("sql", text, "--json"))
    assert row == {"a": 1, "a_1": 2, "a_1_1": 3, "b": 4}
    assert json.loads(fomo("sql", 'SELECT 1 AS a_row, 2 AS c0, 3 AS "a\'"', "--json")) == [
        {"a_row": 1, "c0": 2, "a'": 3}
    ]


def test_a_wide_table_stays_a_row_a_line_and_a_long_cell_is_cut(fomo):
    wide = ", ".join(f"repeat('w', 50) AS column_{number}" for number in range(20))
    lines = fomo("sql", f"SELECT {wide}").splitlines()
    assert len(lines) == 2
    assert lines[1].split() == ["w" * 50] * 20
    cut = fomo("sql", "SELECT repeat('w', 5000) AS caption").splitlines()[1].strip()
    assert cut == "w" * (LONGEST_CELL - 1) + "…"
    assert len(fomo("sql", "SELECT repeat('w', 5000) AS caption", "--csv")) > 5000


def with_description(project):
    project.write("toy", description="[/x] \x1b[2J :smile:")


CASES = {
    "an unknown name with markup": (
        lambda p: None, ["plan", "[/x]:smile:"], 2, ["[/x]:smile:"],
    ),
    "an error with a control code": (
        lambda p: None, ["plan", "\x1b[2Jtoy"], 2, [r"\x1b[2Jtoy"],
    ),
    "an override with markup": (
        lambda p: None, ["plan", "toy", "--set", "seed='[/x]'"], 2, ["[/x]"],
    ),
    "a warning with markup and a control code": (
        lambda p: (p.root / "experiments/other.yaml").write_text('"[/x]\\e[2J": 1\n'),
        ["plan", "toy"], 0, ["[/x]"],
    ),
    "a dataset's prompt, licence and path": (
        lambda p: (p.root / "datasets/hostile.yaml").write_text(
            'odd: {source: {type: folder, path: "/[red]/\\e[2J"}, licence: "[/x]",\n'
            '  prompt: "a {} :smile:", description: "[bold]\\u202e"}\n'
        ),
        ["datasets", "show", "odd"], 1,
        ["[/x]", ":smile:", r"[bold]\u202e", r"/[red]/\x1b[2J"],
    ),
    "a query with markup": (lambda p: None, ["sql", "SELECT '[/x]' FROM"], 2, ["[/x]"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_no_value_is_taken_for_markup_or_obeyed_by_the_terminal(ends, case):
    output = ends(*CASES[case])
    assert "\x1b" not in output
    assert "\u202e" not in output


def test_halves_of_characters_and_what_a_terminal_obeys_are_escaped():
    assert printable("\ud83d and \x1b, \x7f, \ufeff") == r"\ud83d and \x1b, \x7f, \ufeff"
    assert printable("lines\nand\ttabs, 日本語, é") == "lines\nand\ttabs, 日本語, é"


PROGRAM = """
import sys
from fomo_dagster.cli.main import main
sys.argv = ["fomo", *sys.argv[1:]]
main()
"""


@pytest.mark.slow
def test_any_encoding_will_do_and_a_reader_may_go_early(project):
    """One process of each: this is about the streams that a process has."""

    def start(encoding, *arguments):
        environment = {**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C", "COLUMNS": "300"}
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments], env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    table = start("ascii", "sql", "SELECT 'é😀' AS v")
    data = start("ascii", "sql", "SELECT 'é😀' AS v", "--json")
    unread = [start("utf-8", "sql", *arguments) for arguments in ((), ("SELECT 1", "--csv"))]
    for process in unread:
        process.stdout.close()
    for process in unread:
        assert process.stderr.read() == b""
        assert process.wait() == 1
    output, errors = table.communicate()
    assert (table.returncode, errors) == (0, b"")
    assert output.split() == [b"v", rb"\xe9\U0001f600"]
    assert json.loads(data.communicate()[0]) == [{"v": "é😀"}]
