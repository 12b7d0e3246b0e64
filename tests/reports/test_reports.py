"""`fomo report` of a run, and of a second experiment made of its evaluations."""

import csv
import json
from dataclasses import replace
from unittest.mock import Mock

import polars as pl
import pytest
from typer.testing import CliRunner

from fomo_dagster.cli import reports
from fomo_dagster.cli.main import app
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.target import Target
from fomo_dagster.reports.content import Table
from fomo_dagster.reports.sections import losses, pairs
from fomo_dagster.store.digests import digest_of_file
from fomo_dagster.tables.files import table_path
from fomo_dagster.tables.predictions import PREDICTIONS


@pytest.fixture
def plots(monkeypatch):
    """Figures are blank, as most of the time goes into drawing them; they are drawn for methods
    written by hand (test_sections.py) and on pages written by hand (test_pages.py)."""

    def blank(self, file, **_):
        file.write(b"<svg></svg>")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", blank)


def fomo(*arguments):
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def add_twin(project, name, of=None):
    """An experiment like `toy`, whose last stage was evaluated as the first one. of: what it is a
    replicate of."""
    heads, home = project.home.heads, project.home.root
    for asset in list(heads.below("toy")):
        head = heads.read(asset)
        own = asset.replace("toy/", f"{name}/")
        sums = {}
        for table in head.tables or ():
            rows = pl.read_parquet(table_path(home, table, asset, head.digest))
            path = table_path(home, table, own, head.digest)
            path.parent.mkdir(parents=True)
            rows = rows.with_columns(experiment=pl.lit(name))
            if of is not None and table == "experiments":
                label = name.removeprefix(f"{of}_")
                rows = rows.with_columns(replicate_of=pl.lit(of), replicate=pl.lit(label))
            rows.write_parquet(path)
            sums[table] = digest_of_file(path)
        if own.endswith("/evaluation_003"):
            first = heads.read("toy/evaluation_001")
            head = replace(head, artifacts=first.artifacts, recipes=first.recipes)
        heads.write(replace(head, asset=own, experiment=name, tables=sums))


def test_a_report_says_what_results_and_compare_say(finished_project):
    add_twin(finished_project, "twin")
    folder = finished_project.root / "page"
    printed = fomo("report", "twin", "--baseline", "toy", "--to", str(folder))
    assert f"{folder}/report.html" in printed
    said = json.loads(fomo("compare", "toy", "twin", "--json"))["comparisons"][0]
    board = {row["experiment"]: row for row in csv.DictReader(fomo("results", "--csv").splitlines())
             if row["stage"] == "3"}  # fmt: skip
    rows = {
        row["method"]: row
        for row in csv.DictReader((folder / "tables/final_scores.csv").open(encoding="utf-8"))
    }
    assert list(rows) == ["toy", "twin"]
    for name, row in rows.items():
        assert row["knowledge_accumulation"] == board[name]["knowledge_accumulation"]
    metrics = {metric["name"]: metric["difference"] for metric in said["metrics"]}
    for name, difference in metrics.items():
        for key, place in (("difference", "estimate"), ("low", "low"), ("high", "high")):
            assert float(rows["twin"][f"{name}_{key}"]) == difference[place]
    assert rows["toy"]["geometric_mean_difference"] == ""
    lost = list(csv.DictReader((folder / "tables/losses_twin.csv").open()))
    changed = json.loads(fomo("errors", "twin", "--against", "toy", "--json"))["datasets"]
    expected = {row["dataset"]: str(row["newly_wrong"]) for row in changed}
    assert {row["dataset"]: row["newly wrong"] for row in lost} == expected
    compared = csv.DictReader((folder / "tables/comparison_twin_by_dataset.csv").open())
    guessed = {row["name"]: float(row["chance"]) for row in compared}
    assert guessed == {"birds": 25.0, "cats": 50.0, "old": 100 / 3}
    page = (folder / "report.html").read_text()
    digest = finished_project.home.heads.read("twin/scores").digest
    assert f"{digest}  twin/scores" in page
    assert "fomo report toy twin" in page
    assert "data:image/jpeg;base64," in page
    again = {path: path.read_bytes() for path in folder.rglob("*.*")}
    fomo("report", "toy", "twin", "--to", str(folder))
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == again


def test_what_is_missing_is_said_and_what_cannot_be_compared_is_refused(finished_project):
    project = finished_project
    add_twin(project, "twin")
    project.write("planned", replicates=2)
    to = ["--to", str(project.root / "page")]
    printed = fomo("report", "toy", "planned", *to)
    assert "without scores, failed or not finished: planned_seed_0, planned_seed_1" in printed
    assert "Against" not in (project.root / "page" / "report.html").read_text()
    for arguments, message in (
        (["planned"], "nothing of planned has scores yet: `fomo run planned`"),
        (["toy", "--baseline", "planned"], "--baseline planned has no scores yet"),
        (["toy", "tea"], "there is no experiment 'tea'"),
    ):
        with pytest.raises(InputError, match=message):
            fomo("report", *arguments, *to)

    kind, digest = project.home.heads.read("twin/evaluation_003").artifacts["birds"]
    folder = project.home.root / "store" / kind / digest
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / PREDICTIONS).unlink()
    del manifest["files"][PREDICTIONS]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    printed = fomo("report", "toy", "twin", *to)
    assert "no comparison: twin, stage 3, was evaluated on birds before predictions" in printed
    assert not (project.root / "page" / "tables" / "losses_twin.csv").exists()
    assert (project.root / "page" / "tables" / "losses_toy.csv").exists()


def test_other_test_samples_are_refused_with_the_way_out(finished_project):
    project = finished_project
    add_twin(project, "twin")
    head = project.home.heads.read("twin/evaluation_003")
    artifacts = {name: where for name, where in head.artifacts.items() if name != "birds"}
    recipes = {name: recipe for name, recipe in head.recipes.items() if name != "birds"}
    project.home.heads.write(replace(head, artifacts=artifacts, recipes=recipes))
    to = project.root / "page"
    with pytest.raises(
        InputError, match=r"datasets of toy alone: birds: --common .* compares what all have"
    ):
        fomo("report", "toy", "twin", "--to", str(to))
    assert not to.exists()
    assert "left out: datasets of toy alone: birds" in fomo(
        "report", "toy", "twin", "--common", "--to", str(to)
    )
    assert "fomo report toy twin --common" in (to / "report.html").read_text()


def test_a_comparison_stands_for_what_its_file_declares(finished_project, monkeypatch):
    project = finished_project
    project.write("twin")
    add_twin(project, "twin")
    (project.root / "comparisons").mkdir()
    declared = "methods: [toy, twin]\nbaseline: twin\nmargin: 2\ntarget: 30\ncommon: true\n"
    (project.root / "comparisons" / "pair.yaml").write_text(declared)
    asked = []
    monkeypatch.setattr(reports, "report_of", lambda one: asked.append(one) or Mock(remarks=()))
    monkeypatch.setattr(reports, "write_report", lambda *_: Mock(sentence=""))
    fomo("report", "comparisons/pair")
    fomo("report", "comparisons/pair", "--baseline", "toy", "--margin", "0.5")
    first, second = asked
    assert (first.names, first.margin, first.common) == (["twin", "toy"], 2, True)
    assert first.target == Target(metric="geometric_mean", value=30)
    assert first.command == "fomo report comparisons/pair"
    assert (second.names, second.margin) == (["toy", "twin"], 0.5)
    assert second.command == "fomo report comparisons/pair --baseline toy --margin 0.5"
    with pytest.raises(InputError, match="name it alone"):
        fomo("report", "comparisons/pair", "toy")


def test_no_method_is_called_as_a_part_of_another_is(finished_project, monkeypatch):
    names = ["twin", "twin_by_dataset", "twin_by_concept"]
    for name in names:
        add_twin(finished_project, name)
    monkeypatch.setattr("fomo_dagster.reports.making.SECTIONS", (pairs.section, losses.section))
    made = []
    monkeypatch.setattr(
        reports, "write_report", lambda report, _: made.append(report) or Mock(sentence="")
    )
    fomo("report", "toy", *names)
    tables = {table.name: table for table in made[0].all_of(Table)}
    assert len(tables) == len(made[0].all_of(Table))
    assert tables["comparison_twin_by_dataset"].data["method"].unique().item() == "twin_by_dataset"
    assert tables["comparison_twin-by_dataset"].data["method"].unique().item() == "twin"
    assert {"losses_twin_by_concept", "losses_twin-by_concept"} <= tables.keys()


def test_a_p_too_small_for_three_digits_is_not_0():
    rows = [("a", "b", 1.0, 11, 0, 2e-4), ("a", "c", 0.5, 8, 3, 0.0312)]
    columns = ["first", "second", "difference", "wins", "losses", "p"]
    found = Mock(pair_rows=pl.DataFrame(rows, schema=columns, orient="row"))
    found.read.answers = dict.fromkeys("abc")
    _, fold = pairs._all_pairs(found, Mock())
    assert fold.blocks[0].shown["p"].to_list() == ["< 0.001", "0.031"]


@pytest.fixture
def asked(finished_project, monkeypatch):
    """What `fomo report` was asked for, which it does not write; `a` and `b` have three replicates
    each, of which their files declare two."""
    for method in ("a", "b"):
        finished_project.write(method, replicates=2)
        for seed in range(3):
            add_twin(finished_project, f"{method}_seed_{seed}", of=method)
    found = []
    monkeypatch.setattr(reports, "report_of", lambda one: found.append(one) or Mock(remarks=()))
    monkeypatch.setattr(reports, "write_report", lambda *_: Mock(sentence=""))
    return found


def counted_in(reported):
    """Of how many replicates its table is, and its comparison."""
    (one,) = reported.comparison.comparisons
    (of_all,) = reported.final["replicates"].unique()
    return of_all, one.replicates


def test_replicates_that_are_named_are_compared_and_no_others(asked):
    fomo("report", "a_seed_0", "b/seed_0")
    fomo("report", "a_seed_0", "a_seed_1", "--baseline", "a_seed_2")
    fomo("report", "a", "b")
    two, of_one_file, whole = asked
    assert two.members == {"a_seed_0": ["a_seed_0"], "b_seed_0": ["b_seed_0"]}
    assert counted_in(two) == (1, 1)
    assert set(two.assets["experiment"].drop_nulls()) == {"a_seed_0", "b_seed_0"}
    assert of_one_file.names == ["a_seed_2", "a_seed_0", "a_seed_1"]
    assert len(of_one_file.comparison.comparisons) == 2
    assert of_one_file.stages["method"].unique().sort().to_list() == sorted(of_one_file.names)
    assert whole.names == ["a", "b"]
    assert counted_in(whole) == (3, 3)


def test_a_comparison_is_of_the_replicates_that_its_file_declares(finished_project, asked):
    folder = finished_project.root / "comparisons"
    folder.mkdir()
    (folder / "pair.yaml").write_text("methods: [a, b]\n")
    fomo("report", "comparisons/pair")
    fomo("report", "comparisons/pair", "--baseline", "b")
    first, second = asked
    assert first.members == {name: [f"{name}_seed_{n}" for n in (0, 1)] for name in ("a", "b")}
    assert counted_in(first) == (2, 2)
    assert pairs.section(first).blocks[0].source.command == "fomo compare comparisons/pair"
    assert second.members == {name: first.members[name] for name in ("b", "a")}
    by_name = json.loads(fomo("compare", "comparisons/pair", "--json"))
    assert by_name["replicates"] == ["seed_0", "seed_1"]
    assert json.loads(fomo("compare", "a", "b", "--json"))["comparisons"][0]["replicates"] == 3
    finished_project.write("a", replicates=5)
    with pytest.raises(InputError, match="a_seed_3, a_seed_4 of a have no scores yet: `fomo run a"):
        fomo("compare", "comparisons/pair")
