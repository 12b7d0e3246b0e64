"""A file of comparisons/ is an asset, whose rows are what `fomo compare` says by hand."""

import json
from dataclasses import replace
from io import StringIO

import dagster as dg
import polars as pl
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from assets.building import build_definitions
from assets.descriptions import metadata_of
from fomo_dagster.cli.comparing import as_data, compared_by_name, print_comparison
from fomo_dagster.cli.main import app
from fomo_dagster.cli.running import COMMANDS, run_experiment
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.experiment_sets import Trouble
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.graph.core.facts import ONLY, Facts
from fomo_dagster.graph.nodes.evaluation import EvaluationDetails
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.reports.sections import final_scores, losses, pairs
from fomo_dagster.tables import answers
from fomo_dagster.tables.views import query
from resources.run_contexts import RunContexts

UNTRAINED = {"name": "untrained", "datasets": ["birds", "cats"], "stages": 0}


def declare(project, name="pair", **declared):
    path = project.root / "comparisons" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({"methods": ["toy", "untrained"], **declared}))
    return path


def materialised(project, *keys):
    context = RunContext(build_project(project.root), project.home)
    return [materialise(key, context) for key in keys][-1]


@pytest.fixture
def pair(finished_project):
    """`toy` after its last stage, and θ₀, whose evaluation is in the store: nothing is computed."""
    finished_project.write("untrained", stream=UNTRAINED)
    materialised(finished_project, "untrained/evaluation_000", "untrained/scores")
    return finished_project


def fomo(*arguments):
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_its_rows_are_the_differences_that_compare_prints_by_hand(pair):
    declare(pair, baseline="untrained", margin=200)
    outcome = materialised(pair, "comparisons/pair")
    assert outcome.computed == (ONLY,)
    rows = query(pair.home.root, "SELECT * FROM comparisons ORDER BY kind DESC, name").to_dicts()
    asked = ["toy", "untrained"]
    by_hand = compared_by_name(pair.home, asked, "untrained", margin=200, common=False)
    (one,) = as_data(by_hand)["comparisons"]
    expected = {each["name"]: each for each in (*one["metrics"], *one["datasets"])}
    assert len(rows) == len(expected) == 6
    for row in rows:
        said, is_metric = expected[row["name"]], row["kind"] == "metric"
        difference = said["difference"]
        assert (row["comparison"], row["method"], row["baseline"]) == ("pair", "toy", "untrained")
        assert (row["value"], row["baseline_value"]) == (said["value"], said["baseline"])
        assert row["difference"] == difference["estimate"]
        assert (row["low"], row["high"]) == (difference["low"], difference["high"])
        assert row["p"] == (difference["p"] if is_metric else said["p"])
        assert row["corrected_p"] == (None if is_metric else said["corrected"])
        assert row["verdict"] == ("equivalent" if is_metric else None)
        assert (row["role"], row["replicates"], row["margin"]) == (said.get("role"), 1, 200)
    assert {row["name"]: row["queries"] for row in rows if row["kind"] == "dataset"} == {
        "birds": 8, "cats": 4, "old": 6,
    }  # fmt: skip
    assert {row["queries"] for row in rows if row["kind"] == "metric"} == {18}
    last = query(pair.home.root, "SELECT * FROM leaderboard WHERE experiment = 'toy'")
    accumulation = next(row for row in rows if row["name"] == "knowledge_accumulation")
    assert accumulation["value"] == pytest.approx(last["knowledge_accumulation"].item())
    (both,) = query(pair.home.root, "SELECT * FROM comparison_pairs").to_dicts()
    assert (both["comparison"], both["first"], both["second"]) == ("pair", "untrained", "toy")
    assert both["difference"] == by_hand.pairs[0].difference
    graph = build_project(pair.root)
    shown = graph.nodes["comparisons/pair"].shown(outcome, RunContext(graph, pair.home))
    assert shown["comparison"].height == 6
    assert "other stages: untrained at 0, toy at 3" in shown["remarks"].texts


def test_what_cannot_be_paired_fails_and_common_takes_the_rest(pair):
    pair.write("untrained", stream=UNTRAINED, evaluation={"held_out": []})
    declare(pair)
    pair.write("new", seed=7)
    declare(pair, "of_new", methods=["toy", "new"])
    with pytest.raises(InputError, match="new/evaluation_003 was never made"):
        materialised(pair, "comparisons/of_new")
    with pytest.raises(InputError, match=r"datasets of toy alone: old: .*`common: true`"):
        materialised(pair, "untrained/evaluation_000", "comparisons/pair")
    declare(pair, common=True)
    materialised(pair, "comparisons/pair")
    asked = "SELECT name FROM comparisons WHERE kind = 'dataset' ORDER BY name"
    assert query(pair.home.root, asked)["name"].to_list() == ["birds", "cats"]


def test_of_other_subsets_the_samples_are_compared_that_all_have(pair, monkeypatch):
    smaller = {"held_out": ["old"], "subset": 0.5}
    pair.write("untrained", stream=UNTRAINED, evaluation=smaller)
    materialised(pair, "untrained/evaluation_000", "untrained/scores")
    with pytest.raises(InputError, match=r"birds .* untrained: subset 1 and 0.5, seed"):
        fomo("compare", "toy", "untrained")
    read = answers.read_predictions

    def read_less(home, experiment, stage):
        found = read(home, experiment, stage)
        left_out = 2 if experiment == "untrained" else 1  # of each dataset, from the first on
        keep = pl.int_range(pl.len()).over("dataset") >= left_out
        return replace(found, rows=found.rows.filter(keep))

    monkeypatch.setattr(answers, "read_predictions", read_less)
    found = json.loads(fomo("compare", "toy", "untrained", "--common", "--json"))
    queries = {one["name"]: one["queries"] for one in found["comparisons"][0]["datasets"]}
    assert queries == {"birds": 6, "cats": 2, "old": 4}
    assert "left out: 1 queries of birds" in found["remarks"]
    pair.write("untrained", stream=UNTRAINED, evaluation={**smaller, "prompts": ["a {}"]})
    materialised(pair, "untrained/evaluation_000", "untrained/scores")
    with pytest.raises(InputError, match=r"prompts .* and .*; --common"):
        fomo("compare", "toy", "untrained")
    with pytest.raises(InputError, match="no dataset in common that is evaluated alike"):
        fomo("compare", "toy", "untrained", "--common")


def test_a_dataset_that_one_adapts_to_and_another_holds_out_is_not_compared(pair):
    stream = {"name": "narrow", "datasets": ["birds"], "stages": 0}
    pair.write("narrow", stream=stream, evaluation={"held_out": ["cats", "old"]})
    materialised(pair, "narrow/evaluation_000", "narrow/scores")
    said = "cats is evaluated otherwise by narrow and toy: role 'held_out' and 'adaptation'"
    with pytest.raises(InputError, match=said):
        fomo("compare", "narrow", "toy")
    found = json.loads(fomo("compare", "narrow", "toy", "--common", "--json"))
    assert [one["name"] for one in found["comparisons"][0]["datasets"]] == ["birds", "old"]
    assert f"left out: {said}" in found["remarks"]
    declare(pair, methods=["narrow", "toy"])
    with pytest.raises(InputError, match=said):
        materialised(pair, "comparisons/pair")
    with pytest.raises(InputError, match=said):
        fomo("report", "narrow", "toy", "--to", str(pair.root / "page"))
    errors = json.loads(fomo("errors", "toy", "--against", "narrow", "--json"))
    assert [one["dataset"] for one in errors["datasets"]] == ["birds", "cats", "old"]


def test_what_was_evaluated_over_other_classes_is_not_compared(pair):
    head = pair.home.heads.read("untrained/evaluation_000")
    birds = head.recipes["birds"]
    others = {**birds, "inputs": {**birds["inputs"], "concepts": "0" * 32}}
    pair.home.heads.write(replace(head, recipes={**head.recipes, "birds": others}))
    for command in (("compare", "toy", "untrained"), ("errors", "untrained", "--against", "toy")):
        with pytest.raises(
            InputError, match="birds is evaluated otherwise by toy and untrained: other classes"
        ):
            fomo(*command)
        printed = fomo(*command, "--common")
        assert "left out: birds is evaluated otherwise by toy and untrained" in printed
    found = json.loads(fomo("errors", "untrained", "--against", "toy", "--common", "--json"))
    assert [one["dataset"] for one in found["datasets"]] == ["cats", "old"]
    one = ("errors", "untrained", "--against", "toy", "--dataset")
    assert "cats" in fomo(*one, "cats")
    with pytest.raises(InputError, match="no dataset in common"):
        fomo(*one, "birds", "--common")
    with pytest.raises(InputError, match="say with which, by --against"):
        fomo("errors", "toy", "--common")


def test_commands_run_plan_and_print_a_comparison(pair):
    declare(pair, margin=200)
    planned = fomo("plan", "comparisons/pair")
    assert "2 to compute" in planned
    assets = [line.split()[0] for line in planned.splitlines()]
    assert assets[-5:-1] == ["toy", "untrained", "comparisons/pair", "leaderboard"]
    events = [json.loads(line) for line in fomo("run", "comparisons/pair", "--json").splitlines()]
    made = [one["asset"] for one in events if one["event"] == "asset_finished"]
    assert "comparisons/pair" in made
    assert all(one["status"] == "hit" for one in events if one.get("kind") == "trained")
    printed = fomo("run", "comparisons/pair")
    assert "untrained against toy: 1 replicate, 3 datasets, 18 queries" in printed
    assert "equivalent" in printed
    by_file = json.loads(fomo("compare", "comparisons/pair", "--json"))
    assert by_file == json.loads(fomo("compare", "toy", "untrained", "--margin", "200", "--json"))
    assert by_file["comparisons"][0]["metrics"][0]["verdict"] == "equivalent"
    assert "untrained" in fomo("results", "comparisons/pair")
    more = fomo("plan", "comparisons/pair", "--set", "replicates=2")
    assert all(name in more for name in ("seed_1", "toy_seed_0", "comparisons/pair"))
    with pytest.raises(InputError, match="name it alone"):
        fomo("compare", "comparisons/pair", "toy")


def test_a_comparison_that_fails_fails_the_run_and_keeps_the_experiments(pair):
    pair.write("untrained", stream=UNTRAINED, evaluation={"held_out": []})
    declare(pair)
    with pytest.raises(InputError, match=r"^comparisons/pair: datasets of toy alone: old"):
        run_experiment("comparisons/pair", [])
    scores = query(pair.home.root, "SELECT experiment FROM leaderboard ORDER BY ALL")
    assert scores["experiment"].to_list() == ["toy", "untrained"]


def test_the_page_that_it_asks_for_is_what_report_writes(pair, monkeypatch):
    savefig = "matplotlib.figure.Figure.savefig"
    monkeypatch.setattr(savefig, lambda self, file, **_: file.write(b"<svg></svg>"))
    some = (final_scores.section, pairs.section, losses.section)
    monkeypatch.setattr("fomo_dagster.reports.making.SECTIONS", some)
    declare(pair, margin=200, report=True)
    graph = build_project(pair.root)
    context = RunContext(graph, pair.home)
    for key in ("comparisons/pair", "comparisons/pair/report"):
        outcome = materialise(key, context)
    node = graph.nodes["comparisons/pair/report"]
    page = node.page(pair.home)
    shown = metadata_of(node, outcome, context)
    assert shown["page"] == dg.MetadataValue.path(page)
    assert [row.data["method"] for row in shown["final_scores"].records] == ["toy", "untrained"]

    def files(folder):
        found = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in found}

    fomo("report", "comparisons/pair", "--to", str(pair.root / "page"))
    written = files(pair.root / "page")
    assert files(page.parent) == written
    assert b"equivalent: within \xc2\xb1200 points" in written["report.html"]
    assert b"<code>fomo compare comparisons/pair</code>" in written["report.html"]
    assert b"data:image/jpeg" in written["report.html"]
    assert written["tables/final_scores.csv"].count(b",equivalent") == 3
    console = Console(file=StringIO(), width=1000)
    print_comparison(graph.nodes["comparisons/pair"], node, pair.home, console)
    assert console.file.getvalue().endswith(f"report  {page}\n")


# From here on nothing is made.


@pytest.fixture
def declared(project):
    project.write("untrained", stream=UNTRAINED)
    return project


def recipe(project, name="pair", weights="0"):
    node = build_project(project.root).nodes[f"comparisons/{name}"]
    evaluations = EvaluationDetails(evaluations={"birds": weights * 32})
    return node.recipes({key: Facts("", evaluations) for key in node.inputs})[ONLY]


def test_it_is_made_again_for_what_changes_its_rows_and_not_for_its_name(declared):
    path = declare(declared)
    before = recipe(declared)
    assert build_project(declared.root).nodes["comparisons/pair"].inputs == (
        "toy/evaluation_003", "untrained/evaluation_000",
    )  # fmt: skip
    assert recipe(declared, weights="1").digest != before.digest
    path.rename(path.with_name("couple.yaml"))
    assert recipe(declared, "couple").digest == before.digest
    for change in ({"margin": 1}, {"common": True}, {"baseline": "untrained"}):
        declare(declared, **change)
        assert recipe(declared).digest != before.digest
    declare(declared, common=True)
    before = recipe(declared)
    held_out = {"stream": {**UNTRAINED, "datasets": ["birds"]},
                "evaluation": {"held_out": ["cats", "old"]}}  # fmt: skip
    declared.write("untrained", **held_out)
    assert recipe(declared).digest != before.digest


def test_its_page_is_made_again_for_scores_and_settings_alone(declared):
    declare(declared)
    assert "comparisons/pair/report" not in build_project(declared.root).nodes
    comparison = recipe(declared)

    def page(scores="0", compared="0"):
        node = build_project(declared.root).nodes["comparisons/pair/report"]
        versions = {key: Facts(scores * 32) for key in node.inputs}
        return node.recipes({**versions, "comparisons/pair": Facts(compared * 32)})[ONLY].digest

    declare(declared, report=True)
    assert recipe(declared).digest == comparison.digest
    before = page()
    assert page(scores="1") != before
    assert page(compared="1") != before
    declared.write("untrained", stream=UNTRAINED, description="another")
    assert page() == before
    declare(declared, report=True, target=30)
    at_30 = page()
    assert at_30 != before
    declare(declared, report=True, target={"metric": "geometric_mean", "value": 30})
    assert page() == at_30
    declare(declared, report=True, target={})
    assert page() not in (before, at_30)
    declare(declared, report=True)
    declared.write("untrained", stream=UNTRAINED, seed=9)
    assert page() != before
    graph = build_project(declared.root)
    assert [node.key for node in graph.of("toy", "untrained")][-3:] == [
        "comparisons/pair", "comparisons/pair/report", "leaderboard",
    ]  # fmt: skip
    left = graph.without(Trouble("untrained", declared.root, InputError("no good")))
    assert "comparisons/pair/report" not in left.nodes
    assert len(left.troubles) == 2


def test_a_metric_that_is_declared_is_compared_alone_and_is_part_of_the_recipe(pair):
    declare(pair)
    recipe = build_project(pair.root).nodes["comparisons/pair"].declared
    declare(pair, metrics=["zero_shot_retention"])
    assert build_project(pair.root).nodes["comparisons/pair"].declared != recipe
    materialised(pair, "comparisons/pair")
    rows = query(pair.home.root, "SELECT name FROM comparisons ORDER BY kind DESC, name")
    assert rows["name"].to_list() == ["zero_shot_retention", "old"]
    by_hand = json.loads(fomo("compare", "toy", "untrained", "--metric", "ZS", "--json"))
    assert by_hand == json.loads(fomo("compare", "comparisons/pair", "--json"))


def test_experiments_bring_the_comparisons_that_are_about_no_others(declared):
    declare(declared)

    def brought(*names):
        return [node.key for node in build_project(declared.root).of(*names)]

    assert "comparisons/pair" not in brought("toy")
    assert brought("toy", "untrained")[-2:] == ["comparisons/pair", "leaderboard"]


def definitions_of(project):
    return build_definitions(build_project(project.root), RunContexts.of(project.home), COMMANDS)


def test_editors_get_a_schema_of_the_file():
    keys = json.loads(fomo("schema", "--comparisons"))["properties"].keys()
    assert {"methods", "baseline", "margin", "common"} <= keys


def test_dagster_has_its_asset_its_job_and_its_schedule(declared):
    without = definitions_of(declared).resolve_asset_graph().get_all_asset_keys()
    declare(declared, cron_schedule="0 3 * * *", cron_timezone="Europe/Berlin")
    definitions = definitions_of(declared)
    key = dg.AssetKey(["comparisons", "pair"])
    assert definitions.resolve_asset_graph().get_all_asset_keys() - without == {key}
    selected = definitions.resolve_job_def("comparisons_pair").asset_layer.selected_asset_keys
    assert {key, dg.AssetKey(["toy", "scores"]), dg.AssetKey(["untrained", "scores"])} <= selected
    schedule = definitions.get_repository_def().get_schedule_def("comparisons_pair_schedule")
    assert (schedule.job_name, schedule.execution_timezone) == ("comparisons_pair", "Europe/Berlin")


def test_a_faulty_comparison_and_one_of_faulty_experiments_stop_nothing_else(declared):
    declare(declared, "wrong", margins=1)
    declare(declared, "lost", methods=["toy", "bad"])
    declare(declared)
    declared.write("bad", stream={"datasets": ["brids"], "stages": 1})
    definitions = definitions_of(declared)
    said = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    assert "did you mean 'margin'" in said["comparisons_wrong/trouble"].description
    assert "bad, which it compares, cannot be used" in said["comparisons_lost/trouble"].description
    assert "did you mean 'birds'" in said["comparisons_lost/trouble"].description
    assert {"comparisons/pair", "toy/scores", "bad/trouble"} <= said.keys()
    with pytest.raises(dg.Failure):
        definitions.resolve_job_def("comparisons_wrong").execute_in_process()
    with pytest.raises(InputError, match="bad, which it compares, cannot be used"):
        fomo("plan", "comparisons/lost")


def test_an_experiment_called_as_its_job_goes_before_it(declared):
    declare(declared)
    declared.write("comparisons_pair")
    graph = build_project(declared.root)
    assert "comparisons/pair" not in graph.nodes
    (trouble,) = graph.troubles
    assert (trouble.name, trouble.called) == ("comparisons/pair", "comparisons/pair")
    assert "are called 'comparisons_pair'" in trouble.sentence


def test_a_graph_without_an_experiment_has_no_comparison_of_it(declared):
    path = declare(declared)
    graph = build_project(declared.root)
    left = graph.without(Trouble("untrained", path, InputError("no good")))
    assert [one.name for one in left.troubles] == ["untrained", "comparisons/pair"]
    assert "untrained, which it compares, cannot be used" in left.troubles[1].sentence
    assert "comparisons/pair" not in left.nodes
    alone = graph.without(Trouble("comparisons/pair", path, InputError("no good")))
    assert graph.nodes.keys() - alone.nodes.keys() == {"comparisons/pair"}
