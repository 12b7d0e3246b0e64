"""What the commands print is what was made, and all of them read well."""

import io
import json
from importlib.metadata import version

import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

from fomo_dagster.cli.main import ORDER, app
from fomo_dagster.cli.project_commands import only_experiment
from fomo_dagster.cli.reporting import print_by_dataset
from fomo_dagster.errors import InputError
from fomo_dagster.tables.views import query


def run(*arguments):
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_results_agree_with_sql_to_the_last_digit(finished_project):
    printed = json.loads(run("results", "toy", "--json"))
    sql = query(finished_project.home.root, "SELECT * FROM scores ORDER BY stage").to_dicts()
    assert [
        {name: row[name] for name in ("stage", "knowledge_accumulation", "geometric_mean")}
        for row in printed["stages"]
    ] == [
        {name: row[name] for name in ("stage", "knowledge_accumulation", "geometric_mean")}
        for row in sql
    ]
    assert [row["experiment"] for row in printed["leaderboard"]] == ["toy"]
    lines = run("results", "--csv").splitlines()
    assert len(lines) == 1 + len(sql)
    assert float(lines[1].split(",")[2]) == sql[0]["knowledge_accumulation"]


def test_scores_are_the_means_of_the_evaluations(finished_project):
    rows = query(
        finished_project.home.root,
        "SELECT stage, role, avg(value) AS mean FROM evaluations WHERE metric = 'score' "
        "GROUP BY ALL ORDER BY ALL",
    )
    scores = query(finished_project.home.root, "SELECT * FROM scores ORDER BY stage")
    adaptation = rows.filter(pl.col("role") == "adaptation")["mean"].to_list()
    assert adaptation == pytest.approx(scores["knowledge_accumulation"].to_list())
    held_out = rows.filter(pl.col("role") == "held_out")["mean"].to_list()
    assert held_out == pytest.approx(scores["zero_shot_retention"].to_list())


def test_scores_by_dataset_fit_a_terminal_and_keep_every_name(finished_project):
    frame = pl.DataFrame(
        {
            "experiment": "fomo_in_flux_zero_shot", "dataset": ["domainnet_infograph", "mscoco"],
            "role": ["adaptation", "held_out"], "task": "classification", "score": [50.704, 100.0],
            "stage": 200, "zero_shot": [50.704, 100.0], "published": [50.7, 72.0],
            "difference": [0.004, 28.0], "chance": [0.29, None],
        }
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=80)
    print_by_dataset(frame, console)
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert lines[0] == ["fomo_in_flux_zero_shot,", "stage", "200,", "in", "%"]
    assert lines[1] == ["dataset", "role", "score", "θ₀", "chance", "published", "difference"]
    numbers = ["50.70", "50.70", "0.29", "50.70", "0.00"]
    assert lines[2] == ["domainnet_infograph", "adaptation", *numbers]
    assert lines[3][:5] == ["mscoco", "held", "out", "100.00", "100.00"]
    assert run("results", "--datasets").split()[:3] == ["toy,", "stage", "3,"]


def test_sql_prints_every_format_and_lists_the_views(finished_project):
    assert "training_steps" in run("sql")
    assert "0.0003" in run("sql", "SELECT 3e-4::DOUBLE AS learning_rate")
    text = "SELECT count(*) AS n FROM training_steps WHERE experiment = 'toy'"
    assert json.loads(run("sql", text, "--json")) == [{"n": 6}]
    assert run("sql", text, "--csv") == "n\n6\n"
    path = run("sql", "--path").strip()
    assert path == str(finished_project.home.root.resolve() / "fomo.duckdb")


def test_the_plan_as_json_counts_what_it_lists(finished_project):
    plan = json.loads(run("plan", "toy", "--set", "optimiser.learning_rate=5e-4", "--json"))
    computed = [asset for asset in plan["assets"] if asset["status"] == "compute"]
    # three trainings, their evaluations, the scores and the leaderboard
    assert plan["compute"] == len(computed) == 8
    assert plan["hits"] == len(plan["assets"]) - 8
    assert plan["estimated_seconds"] > 0


def test_the_schedule_is_that_of_the_training(finished_project, tmp_path):
    trained = query(
        finished_project.home.root,
        "SELECT stage, step, learning_rate FROM training_steps WHERE experiment = 'toy' "
        "ORDER BY ALL",
    )
    printed = json.loads(run("schedule", "toy", "--json"))
    assert [(row["stage"], row["step"]) for row in printed] == trained.select(
        "stage", "step"
    ).rows()
    rates = [row["learning_rate"] for row in printed]
    assert rates == trained["learning_rate"].to_list()
    assert [row["image_tower"] for row in printed] == rates
    picture = tmp_path / "rates.png"
    arguments = (
        "--steps", "20", "--stages", "4", "--set", "schedule={name: rsqrt, recovery: continued}",
        "--set", "tower_warmup={length: 0.25}", "--plot", str(picture),
    )  # fmt: skip
    lines = run("schedule", "toy", *arguments).splitlines()
    assert lines[0].split() == ["toy:", "learning", "rate", "over", "20", "steps", "a", "stage"]
    assert [line.split()[0] for line in lines[2:6]] == ["1", "2", "3", "4"]
    assert [line.split()[-2:] for line in lines[2:4]] == [["1", "0"], ["1", "0"]]
    assert lines[6] == "The image tower's is 0 over the first 5 steps of each stage."
    assert picture.read_bytes().startswith(b"\x89PNG")
    last = run("schedule", "toy", *arguments[:8], "--csv").splitlines()[-1].split(",")
    assert last == ["4", "19", "0.0", "0.0", "0.0"]


def test_a_schedule_over_epochs_needs_to_be_told_the_steps(project):
    epochs = ("schedule", "toy", "--set", "budget={epochs: 2}")
    with pytest.raises(InputError, match="give a number with --steps"):
        run(*epochs)
    assert len(json.loads(run(*epochs, "--steps", "7", "--json"))) == 3 * 7
    with pytest.raises(InputError, match="do not fit into a stage of 7 steps"):
        run(*epochs, "--steps", "7", "--set", "schedule.warmup=8")


def test_a_budget_is_printed_beside_those_of_other_methods(finished_project):
    """The toy's 2 steps of 3 stages are the total; half the batch buys about twice as many."""
    asked = ("budget", "toy", "--beside", "method.train=locked_text", "--beside", "batch_size=6")
    printed = json.loads(run(*asked, "--json"))
    rows = {row["method"]: row for row in printed["methods"]}
    assert list(rows) == ["toy", "full fine-tuning", "method.train=locked_text", "batch_size=6"]
    assert rows["toy"] == rows["full fine-tuning"] | {"method": "toy"}
    assert printed["stages"] == 3
    assert printed["mafs"] == pytest.approx(3 * 2 * rows["toy"]["mafs_per_step"])
    for row in rows.values():
        product = row["gigaflops_per_step"] * row["memory_multiplier"]
        assert row["mafs_per_step"] == pytest.approx(product)
        assert row["steps_per_stage"] == round(printed["mafs"] / 3 / product)
    assert rows["toy"]["steps_per_stage"] == 2
    assert rows["batch_size=6"]["samples_per_stage"] == 6 * 3
    assert rows["method.train=locked_text"]["memory_multiplier"] < 1
    lines = run(*asked).splitlines()
    assert lines[0].split()[2:6] == ["MAFs", "over", "3", "stages"]
    assert [line.split()[0] for line in lines[2:4]] == ["toy", "full"]
    assert len(run(*asked, "--csv").splitlines()) == 1 + 4


@pytest.mark.slow
def test_a_budget_that_pays_for_a_method_and_not_for_another(project):
    step = json.loads(run("budget", "toy", "--json"))["methods"][0]["gigaflops_per_step"]
    budget = f"budget={{mafs: {2 * step}}}"
    found = run("budget", "toy", "--set", budget, "--stages", "1", "--beside", "batch_size=90")
    assert found.splitlines()[4].split()[-2:] == ["0", "0"]
    with pytest.raises(InputError, match="one step in each of 9 stages takes"):
        run("budget", "toy", "--set", budget, "--stages", "9")
    printed = json.loads(run("schedule", "toy", "--set", f"budget={{mafs: {9 * step}}}", "--json"))
    assert [row["step"] for row in printed] == [0, 1, 2] * 3


def test_a_budget_in_epochs_says_what_a_step_costs_alone(project):
    printed = json.loads(run("budget", "toy", "--set", "budget={epochs: 1}", "--json"))
    assert printed["mafs"] is None
    assert printed["methods"][0]["steps_per_stage"] is None
    assert printed["methods"][0]["mafs_per_step"] > 0
    assert "--set 'budget={mafs: 1.8e9}'" in run("budget", "toy", "--set", "budget={epochs: 1}")


def test_scores_stand_against_any_cost(finished_project, tmp_path):
    picture = tmp_path / "scores.png"
    printed = run("results", "toy", "--against", "flops", "--plot", str(picture), "--csv")
    first, *stages = (line.split(",") for line in printed.splitlines()[1:])
    assert float(first[3]) == 0
    assert [float(stage[3]) for stage in stages] == [2 * 3_646_368 * n for n in (1, 2, 3)]
    assert picture.read_bytes().startswith(b"\x89PNG")
    lines = run("results", "toy", "--against", "flops").splitlines()
    assert lines[0].strip() == "GM in % against flops"
    assert [line.split()[-2:] for line in lines[3:]] == [
        ["7.29", "MFLOPs"], ["14.6", "MFLOPs"], ["21.9", "MFLOPs"],
    ]  # fmt: skip
    with pytest.raises(InputError, match="no cost 'flop': did you mean 'flops'"):
        run("results", "toy", "--against", "flop")
    with pytest.raises(InputError, match="no training of toy recorded its energy_joules: choose"):
        run("results", "toy", "--against", "energy_joules")
    with pytest.raises(InputError, match="say which with --against"):
        run("results", "toy", "--plot", str(picture))


def test_a_project_with_one_experiment_needs_no_name(project):
    assert only_experiment(project.root) == "toy"
    assert run("plan") == run("plan", "toy")
    project.write("tea")
    for command in ("run", "plan"):
        with pytest.raises(InputError, match="has 2 experiments: name one of tea, toy"):
            run(command)
    for name in ("tea", "toy"):
        (project.root / "experiments" / f"{name}.yaml").unlink()
    with pytest.raises(InputError, match="has no experiment: `fomo init` writes one"):
        run("run", "--json")


def test_the_version_is_that_of_the_installed_package():
    assert run("--version") == f"fomo-dagster {version('fomo-dagster')}\n"


def test_every_command_explains_itself():
    commands = (
        "run", "plan", "schedule", "budget", "results", "sql", "export", "datasets", "fetch",
        "schema", "ui",
    )  # fmt: skip
    listed = [line.split()[1] for line in run("--help").splitlines() if line.startswith("│ ")]
    assert [name for name in listed if name in ORDER] == list(ORDER)
    for command in commands:
        text = run(command, "--help")
        assert len(text.split()) > 15, command
        assert command in run("--help")


def test_the_steps_of_every_stage_say_what_they_drew(finished_project):
    rows = query(
        finished_project.home.root,
        "SELECT DISTINCT stage, update_samples, buffer_samples, pretraining_samples "
        "FROM training_steps WHERE experiment = 'toy' ORDER BY stage",
    )
    # 9 a batch at .34/.33/.33, rounded as in the release; without a buffer, others have its rows
    assert rows.rows() == [(1, 5, 0, 4), (2, 4, 2, 3), (3, 4, 2, 3)]


def test_fewer_stages_leave_no_rows_of_those_that_are_gone(finished_project):
    stream = {"name": "toy", "datasets": ["birds", "cats"], "stages": 2}
    finished_project.write("toy", stream=stream)
    run("run", "toy")
    root = finished_project.home.root
    stages = query(root, "SELECT DISTINCT stage FROM evaluations ORDER BY stage")["stage"].to_list()
    assert stages == [0, 1, 2]
    for table in ("scores", "training_steps", "chunks"):
        assert query(root, f"SELECT max(stage) AS last FROM {table}")["last"].item() == 2, table


def test_what_an_export_says_can_be_pasted_whatever_the_path(finished_project):
    path = finished_project.root / ("long_" * 20) / "[bold]" / "served.pt"
    result = CliRunner().invoke(app, ["export", "toy", str(path)], catch_exceptions=False)
    assert f"add_model_config({str(path.with_suffix('.json'))!r}); " in result.stderr
    assert f"pretrained={str(path)!r})" in result.stderr
    assert path.exists()
