"""`fomo compare` pairs replicates and test samples, and refuses what cannot be paired."""

import json

import pytest
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import InputError
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.tables.replicates import methods
from fomo_dagster.tables.views import query


def fomo(*arguments):
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.slow
def test_replicated_methods_are_compared(finished_project):
    project = finished_project
    stream = {"name": "short", "datasets": ["birds", "cats"], "stages": 1}
    short = {"replicates": 2, "stream": stream, "evaluation": {"held_out": ["old"]}}
    project.write("slow", **short, optimiser={"learning_rate": 1e-4})
    project.write("fast", **short, optimiser={"learning_rate": 1e-1})
    for name in ("slow", "fast"):
        run_experiment(name, [])
    rows = query(project.home.root, "SELECT experiment, replicate_of, seed FROM experiments")
    assert ("fast_seed_1", "fast", 1) in rows.rows()
    said = json.loads(fomo("compare", "slow", "fast", "--json"))
    (one,) = said["comparisons"]
    assert (one["method"], one["baseline"], one["replicates"]) == ("fast", "slow", 2)
    assert said["replicates"] == ["seed_0", "seed_1"]
    mean = "SELECT avg(knowledge_accumulation) FROM leaderboard WHERE experiment LIKE '{}%'"
    for name, key in (("fast", "value"), ("slow", "baseline")):
        expected = query(project.home.root, mean.format(name)).item()
        assert one["metrics"][0][key] == pytest.approx(expected)
    turned = json.loads(fomo("compare", "slow", "--baseline", "fast", "--json"))["comparisons"][0]
    assert turned["metrics"][0]["difference"]["estimate"] == pytest.approx(
        -one["metrics"][0]["difference"]["estimate"]
    )
    shares = {
        row["method"]: row["share"] for row in said["profiles"] if row["above"] == 0
    }  # fmt: skip
    scored = "SELECT avg((value > 0)::INT) FROM evaluations WHERE metric = 'score' AND stage = 1"
    for name in ("slow", "fast"):
        expected = query(project.home.root, f"{scored} AND experiment LIKE '{name}_seed%'").item()
        assert shares[name] == pytest.approx(expected)
    alone = json.loads(fomo("compare", "slow", "fast", "--metric", "ka", "--json"))
    (of_one,) = alone["comparisons"]
    assert of_one["metrics"] == one["metrics"][:1]
    assert {dataset["name"] for dataset in of_one["datasets"]} == {"birds", "cats"}
    assert {pair["losses"] + pair["wins"] for pair in alone["pairs"]} <= {0, 1, 2}
    two = json.loads(fomo("compare", "slow", "fast", "--metric", "KA", "--metric",
                          "zero_shot_retention", "--json"))["comparisons"][0]  # fmt: skip
    assert two["metrics"] == one["metrics"][:2]
    assert len(two["datasets"]) == 3
    with pytest.raises(InputError, match="not compared by 'forgetting': valid are KA, ZS, GM"):
        fomo("compare", "slow", "fast", "--metric", "forgetting")
    single = fomo("compare", "fast/seed_0", "toy", "--common")
    assert "fast_seed_0: 1 replicate" in single
    printed = fomo("compare", "slow", "fast", "--margin", "50")
    assert "2 replicates: too few to trust the intervals" in printed
    assert "fast against slow: 2 replicates, 3 datasets, 18 queries" in printed
    methods = fomo("results", "slow", "fast")
    assert " ± " in methods
    means = json.loads(fomo("results", "slow", "fast", "--json"))["methods"]
    of_means = {row["method"]: row for row in means}
    assert {name: row["replicates"] for name, row in of_means.items()} == {"slow": 2, "fast": 2}
    written = "{knowledge_accumulation:.2f} ± {knowledge_accumulation_within:.2f}"
    assert all(written.format(**row) in methods for row in means)
    assert "guessing scores KA 37.50, ZS 33.33, GM 35.36\n" in methods
    assert "one run each: how much other seeds would change is unknown" in fomo("results", "toy")
    graph = build_project(project.root)
    board = graph.nodes["leaderboard"]
    assert board.method_of == {f"{n}_seed_{s}": n for n in ("slow", "fast") for s in (0, 1)}
    context = RunContext(graph, project.home)
    shown = board.shown(materialise("leaderboard", context), context)
    assert set(shown["means_over_replicates"]["method"]) == {"slow", "fast", "toy"}
    with pytest.raises(
        InputError, match=r"no replicates in common: slow: .*; toy: one run: declare .* slow_seed_0"
    ):
        fomo("compare", "slow", "toy")


def test_what_cannot_be_paired_is_refused(finished_project):
    for arguments, message in (
        (["toy", "toy"], "a comparison takes two or more methods, not toy, toy"),
        (["toy", "tea"], "no evaluation of 'tea' is there: valid: 'toy'"),
    ):
        with pytest.raises(InputError, match=message):
            fomo("compare", *arguments)


@pytest.mark.slow
def test_a_run_from_before_its_file_had_replicates_counts_no_more(finished_project):
    project = finished_project
    project.write("toy", replicates=2)
    run_experiment("toy", [])
    board = query(project.home.root, "SELECT experiment FROM leaderboard ORDER BY experiment")
    assert board["experiment"].to_list() == ["toy", "toy_seed_0", "toy_seed_1"]
    assert methods(project.home.root).select("method", "replicates").rows() == [("toy", 2)]
    project.write("toy", replicates=2, budget={"steps": 1})
    run_experiment("toy/seed_1", [])
    with pytest.raises(InputError, match="toy_seed_0 and toy_seed_1 differ in budget, and so are"):
        fomo("compare", "toy", "toy_seed_0", "--common")
