"""`fomo errors` says what is wrong, what became wrong, and shows it."""

import csv
import io
import json

from PIL import Image
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.tables.views import query


def fomo(*arguments):
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_errors_of_a_stage_and_what_changed(finished_project):
    wrong = query(
        finished_project.home.root,
        "SELECT dataset, count(*) FROM predictions WHERE stage = 3 AND rank > 0 GROUP BY ALL",
    )
    said = json.loads(fomo("errors", "toy", "--json"))
    assert {row["dataset"]: row["newly_wrong"] for row in said["datasets"]} == dict(wrong.rows())
    assert len(said["samples"]) == wrong["count_star()"].sum()
    rows = list(csv.DictReader(io.StringIO(fomo("errors", "toy", "--since", "0", "--csv"))))
    assert {row["change"] for row in rows} <= {"newly_wrong", "newly_right"}
    sheet = finished_project.root / "sheet.png"
    printed = fomo("errors", "toy", "--sheet", str(sheet), "--most", "1")
    assert "toy, stage 3" in printed
    assert "mostly taken for" in printed
    assert Image.open(sheet).format == "PNG"
    one = json.loads(fomo("errors", "toy", "--stage", "1", "--dataset", "birds", "--json"))
    assert [row["dataset"] for row in one["datasets"]] == ["birds"]
    asked = "SELECT count(*) FROM predictions WHERE stage = 1 AND dataset = 'birds' AND rank > 0"
    assert len(one["samples"]) == query(finished_project.home.root, asked).item()
    against = fomo("errors", "toy", "--against", "toy", "--since", "0", "--csv")
    assert against == fomo("errors", "toy", "--since", "0", "--csv")
    same = fomo("errors", "toy", "--since", "3")
    assert "nothing is newly wrong" in same


def test_reliability_diagrams_are_of_both_stages(finished_project, monkeypatch):
    drawn = {}
    plot = "fomo_dagster.cli.prediction_errors.reliability_plot"
    monkeypatch.setattr(plot, lambda panels, title: drawn.update(panels) or title.encode())
    file = finished_project.root / "reliability.png"
    fomo("errors", "toy", "--since", "0", "--reliability", str(file))
    assert file.read_text() == "Reliability: toy, stage 3 against stage 0"
    assert list(drawn) == ["birds", "cats", "old"]
    assert {tuple(curves) for curves in drawn.values()} == {("toy, stage 0", "toy, stage 3")}
    asked = "SELECT avg((concept = predicted)::INT) FROM predictions WHERE dataset = 'birds'"
    right = query(finished_project.home.root, f"{asked} AND stage = 3").item()
    bins = drawn["birds"]["toy, stage 3"]
    assert (bins["accuracy"] * bins["images"]).sum() / bins["images"].sum() == right
    refused = CliRunner().invoke(app, ["errors", "toy", "--reliability", "here.jpg"])
    assert refused.exit_code == 1
