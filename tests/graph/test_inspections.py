"""Inspections as assets: what they say, and what they depend on."""

import json

import polars as pl
import pytest
from PIL import Image
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.errors import InputError
from fomo_dagster.graph.nodes.inspection import InspectionNode
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.tables.views import query

NEEDED = {"shards", "order", "chunk", "backbone", "trained", "inspection", "pool"}


def make(project, **changes):
    """Materialise what the stages' inspections need; key → outcome."""
    project.write("toy", **changes)
    graph = project.graph()
    context = RunContext(graph, project.home)
    nodes = [node for node in graph.of("toy") if node.kind in NEEDED]
    return {node.key: materialise(node.key, context) for node in nodes}


def fomo(*arguments):
    return CliRunner().invoke(app, [*arguments], catch_exceptions=False)


@pytest.fixture
def inspected(project):
    for concept in ("robin", "wren", "crow", "swan"):  # five are looked at
        project.add_image("birds", "train", concept, 700)
    made = make(project, inspection={"label_noise": True, "permutations": 99})
    return project, made


@pytest.mark.slow
def test_every_sample_of_a_stage_has_a_row(inspected):
    project, made = inspected
    rows = query(project.home.root, "SELECT * FROM inspections")
    brought = query(project.home.root, "SELECT stage, sum(samples) AS n FROM chunks GROUP BY 1")
    counts = rows.group_by("stage").len().sort("stage")
    assert counts["len"].to_list() == brought.sort("stage")["n"].to_list()
    assert rows.filter(stage=1)["novelty"].null_count() == rows.filter(stage=1).height
    assert rows.filter(pl.col("stage") > 1)["novelty"].null_count() == 0
    assert rows["confidence"].null_count() == 0
    few = rows.group_by("stage", "concept").len().filter(pl.col("len") < 5)
    assert rows["doubtful"].null_count() == few["len"].sum() < rows.height
    assert rows["similarity"].abs().max() <= 1 + 1e-6
    drifts = query(project.home.root, "SELECT * FROM drifts ORDER BY stage")
    assert drifts["earlier"].to_list() == [0, *counts["len"].cum_sum().to_list()[:-1]]
    assert drifts["p"].null_count() == 1
    outcome = made["toy/inspection_002"]
    node = project.graph().nodes["toy/inspection_002"]
    shown = node.shown(outcome, None)
    assert "a classifier tells new from earlier samples" in shown["drift"]
    assert Image.open(shown["newest"].path).format == "JPEG"
    told = json.loads(fomo("inspect", "toy", "--json").stdout)
    assert [stage["samples"] for stage in told["stages"]] == counts["len"].to_list()
    assert len(told["samples"]) == rows.height
    sheet = project.root / "sheet.png"
    said = fomo("inspect", "toy", "--by", "novelty", "--most", "1", "--sheet", str(sheet))
    assert f"{rows['novelty'].count() - 1} more samples" in said.output
    assert Image.open(sheet).format == "PNG"
    assert fomo("inspect", "toy", "--csv").stdout.count("\n") == rows.height + 1
    with pytest.raises(InputError, match="stage 9 of 'toy' was not inspected"):
        fomo("inspect", "toy", "--stage", "9")


@pytest.mark.slow
def test_an_inspection_stays_while_its_samples_and_weights_do(project):
    settings = {"permutations": 99, "weights": "initial"}
    make(project, inspection=settings)
    made = make(project, inspection=settings, optimiser={"learning_rate": 1e-2})
    assert not [k for k, of in made.items() if "inspection" in k and of.computed]
    by_start = make(project, inspection={"permutations": 99})
    computed = [key for key, of in by_start.items() if "inspection" in key and of.computed]
    assert computed == ["toy/inspection_002", "toy/inspection_003"]  # stage 1 starts from θ₀
    said = fomo("inspect", "toy", "--stage", "2").output  # captions, since labels were not doubted
    assert "Captions that fit least" in said
    assert fomo("inspect", "toy", "--stage", "2", "--by", "captions").output == said
    with pytest.raises(InputError, match="wrong labels were not looked for in 'toy'"):
        fomo("inspect", "toy", "--by", "labels")


@pytest.mark.slow
def test_a_stage_too_small_to_look_for_wrong_labels_says_so(inspected):
    project, _ = inspected
    rows = query(project.home.root, "SELECT stage, doubtful FROM inspections")
    looked = set(rows.drop_nulls()["stage"])
    (small,) = set(rows["stage"]) - looked
    said = f"at stage {small} of 'toy', .* two concepts with 5 samples each"
    with pytest.raises(InputError, match=said):
        fomo("inspect", "toy", "--by", "labels", "--stage", str(small))
    wrong = fomo("inspect", "toy", "--by", "label")
    assert "Invalid value for '--by': 'label' is not one of" in wrong.output


def test_an_inspection_is_no_part_of_what_is_trained(project):
    def inputs():
        nodes = project.graph().nodes
        return {key: node.inputs for key, node in nodes.items() if "inspection" not in key}

    before = inputs()
    project.write("toy", inspection={})
    assert inputs() == before
    nodes = project.graph().nodes
    assert [key for key, n in nodes.items() if isinstance(n, InspectionNode)] == [
        f"toy/inspection_{stage:03d}" for stage in (1, 2, 3)
    ]


def test_what_was_not_inspected_says_how_to(project):
    make(project)
    with pytest.raises(InputError, match=r"give it `inspection: \{\}`"):
        fomo("inspect", "toy")
