"""Rows fit the terminal as a table or as records; without one, a row is a line."""

import io
import json
from dataclasses import replace
from types import SimpleNamespace

import polars as pl
import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.cli.output import Terminal
from fomo_dagster.cli.planning import print_plan
from fomo_dagster.cli.reporting import print_scores
from fomo_dagster.cli.rows import DIGITS, _Rows, print_frame, print_rows, print_whole
from fomo_dagster.errors import InputError
from fomo_dagster.graph.run.plan import Planned
from fomo_dagster.tables.results import Results
from fomo_dagster.tables.view_columns import DESCRIPTIONS, comments_of


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def printed(show, *arguments, width=80, file=None, **options):
    console = Terminal()
    console.file, console.width = file or Screen(), width
    console.no_color = True
    show(*arguments, **options, console=console)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


WIDE = pl.DataFrame({"name": ["a [b]\n\x1b[0m", "b" * 130], "value": [0.123456789, 3e-7]})


def test_rows_that_fit_are_a_table_and_wider_ones_are_records():
    assert printed(print_rows, WIDE, width=160)[0].split() == ["name", "value"]
    lines = printed(print_rows, WIDE)
    assert lines == [
        "row 1", "name   a [b]\\n\\x1b[0m", "value  0.123457", "row 2",
        f"name   {'b' * 73}", f"       {'b' * 57}", "value  3e-07",
    ]  # fmt: skip


def test_no_rows_and_no_scores_are_said():
    assert printed(print_rows, WIDE.clear(), "records") == ["no rows of name, value"]
    none = scores("toy")
    none = Results(none.stages.clear(), none.leaderboard.clear())
    (said,) = printed(print_scores, none)
    assert said == "No experiment has scores yet: `fomo run EXPERIMENT` computes them."


def test_a_pipe_gets_a_line_a_row_whatever_its_width():
    assert len(printed(print_rows, WIDE, file=io.StringIO())) == 3
    records = printed(print_rows, WIDE, "records", file=io.StringIO(), width=20)
    assert records[4] == f"name   {'b' * 130}"


def test_a_table_that_is_asked_for_is_not_broken():
    lines = printed(print_rows, WIDE, "table", width=20)
    assert [line.split()[-1] for line in lines] == ["value", "0.123457", "3e-07"]


def test_what_a_table_cuts_has_a_mark_and_a_record_cuts_nothing():
    long = pl.DataFrame({"text": ["x" * 500]})
    assert printed(print_rows, long, "table", width=20)[1].strip() == "x" * 199 + "…"
    assert "".join(printed(print_rows, long)).count("x") == 1 + 500


def scores(name):
    values = [37.5, 16.67, 25.0, -25.0, 100.0]
    names = (
        "knowledge_accumulation", "zero_shot_retention", "geometric_mean", "backward_transfer",
        "forgetting",
    )  # fmt: skip
    stages = pl.DataFrame(
        {"experiment": name, "stage": [200], **dict(zip(names, values, strict=True))}
    )
    board = {"experiment": name, "stages": 200, "geometric_mean": 25.0, "seconds": 7980.0}
    return Results(stages, pl.DataFrame(board))


@pytest.mark.parametrize("name", ["toy", "fomo_in_flux_zero_shot", "rates_" + "long_name_" * 12])
def test_results_fit_80_columns_whole_and_with_units(name):
    lines = printed(print_scores, scores(name))
    assert all(cell_len(line) <= 80 for line in lines)
    stages, board = lines[: lines.index("Leaderboard")], lines[lines.index("Leaderboard") :]
    for part in (stages, board):
        words = [line.split()[0] for line in part[1:] if line.strip()]
        assert name in "".join(words)
    assert [line.split()[-5:] for line in stages if "37.50" in line] == [
        ["37.50", "16.67", "25.00", "-25.00", "100.00"]
    ]
    assert any(line.endswith("2 h 13 min") for line in board)
    assert lines[-1] == "KA, ZS, GM in %; backward transfer, forgetting in points"


def test_numbers_are_never_broken_however_narrow_the_terminal():
    frame = pl.DataFrame({"experiment": "a" * 40, "first number": [1234.5], "second": [-0.25]})
    lines = printed(print_frame, frame, width=20)
    assert "aaaaaaaaaaaa  1234.50   -0.25" in " ".join(lines)


def planned(asset, *reasons):
    compute = ("only",) if reasons else ()
    return Planned(
        asset=asset, kind="trained", stage=1, compute=compute, hits=(), current=not reasons,
        reasons=reasons, samples=10_000, estimated_seconds=185.0,
    )  # fmt: skip


def test_a_plan_fits_80_columns_and_cuts_experiments_before_stages():
    name = "fomo_in_flux_learning_rate_1e_3_lora_rank_4_seed_12"
    reason = "it starts from other weights; optimiser.learning_rate 0.001 → 0.0005"
    entries = [planned(f"{name}/evaluation_000"), planned(f"{name}/trained_001", reason)]
    several = SimpleNamespace(sweep=None, comparison=None)
    lines = printed(print_plan, entries, several)
    assert all(cell_len(line) <= 80 for line in lines)
    assert lines[1].split()[0].endswith("/evaluation_000")
    asset, *others = lines[2].split()
    assert asset.startswith("fomo")
    assert asset.endswith("/trained_001")
    assert others[0] == "compute"
    assert others[-4:] == ["3", "min", "05", "s"]
    assert "".join(line[lines[0].index("why") :][:24] for line in lines[2:-1]).count("→") == 1
    assert lines[-1] == "1 to compute, 1 hit, about 3 min 05 s"
    whole = printed(print_plan, entries, several, file=io.StringIO())
    assert whole[2].split(maxsplit=2)[:2] == [f"{name}/trained_001", "compute"]
    assert reason in whole[2]


def test_formats_of_sql_agree_and_contradictions_are_refused(finished_project):
    def run(*arguments):
        result = CliRunner().invoke(app, ["sql", *arguments], catch_exceptions=False)
        return result.stdout

    text = "SELECT 'é' AS a, 3e-7::DOUBLE AS b"
    assert run(text, "--format", "csv") == run(text, "--csv") == "a,b\né,3e-7\n"
    assert run(text, "--format", "json") == run(text, "--json", "--format", "json")
    assert json.loads(run(text, "--json")) == [{"a": "é", "b": 3e-7}]
    assert run(text, "--format", "records") == "row 1\na  é\nb  3e-07\n"
    with pytest.raises(InputError, match="--format table and --csv ask for several formats"):
        run(text, "--format", "table", "--csv")


def test_sql_says_what_views_and_columns_mean(finished_project):
    def run(*arguments):
        arguments = ["sql", *arguments, "--json"]
        return json.loads(CliRunner().invoke(app, arguments, catch_exceptions=False).stdout)

    meant = {row["view"]: row["a row is"] for row in run()}
    assert meant == DESCRIPTIONS
    for view in DESCRIPTIONS:
        shown = {row["column"]: row["meaning"] for row in run(view)}
        assert shown == dict(comments_of(view))
    asked = run(
        "SELECT comment FROM duckdb_columns() WHERE table_name = 'scores' "
        "AND column_name = 'forgetting'"
    )
    assert asked == [{"comment": comments_of("scores")["forgetting"]}]
    with pytest.raises(InputError, match="there is no view 'scored': did you mean 'scores'"):
        run("scored")


@pytest.mark.parametrize("title", [None, "Rows [of] something that is longer than they are"])
@pytest.mark.parametrize("numbers", [(), ("text",)])
def test_rows_are_laid_out_as_rich_lays_out_a_table(title, numbers):
    texts = ["a", "日本 x ", "", None, "[b]\n\x1b[0m", "x" * 300, "  é👍", "2.5 "]
    frame = pl.DataFrame({"text": texts, "a number": [0.125 * 10.0**n for n in range(-3, 5)]})
    for shown in (frame, frame.clear(), frame.head(1)):
        rows = _Rows.of(shown, title, DIGITS, numbers)
        for one in (rows, replace(rows, is_split=True)):
            console, reference = (Terminal(file=io.StringIO()) for _ in range(2))
            one.print(console)
            print_whole(one.as_table(), reference)
            assert console.file.getvalue() == reference.file.getvalue()
