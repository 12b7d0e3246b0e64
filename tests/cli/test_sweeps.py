"""A sweep in one command: what its experiments share is made once, and one that fails is said."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from assets.building import build_definitions
from assets.specs import EXPERIMENT_TAG
from fomo_dagster.cli.dagster_home import prepare
from fomo_dagster.cli.main import app
from fomo_dagster.cli.planning import shown_in_ui
from fomo_dagster.cli.running import COMMANDS, run_experiment
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.experiment.comparisons import load_named
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.store.heads import Heads
from resources.run_contexts import RunContexts

pytestmark = pytest.mark.slow

SWEEP = {
    "extends": "toy",
    "stream": {"name": None, "datasets": ["birds"], "stages": 1},
    "evaluation": {"held_out": ["cats"]},
    "budget": {"steps": 1},
    "sweep": {
        "optimiser.learning_rate": [1e-4, 1e-3],
        "method": {"full": {"name": "finetune"}, "lora": {"name": "lora", "rank": 2}},
    },
}
NAMES = [f"lr_learning_rate_{rate}_{m}" for rate in ("1e_4", "1e_3") for m in ("full", "lora")]


def run(*arguments):
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def write(project, **changes):
    path = project.root / "experiments" / "lr.yaml"
    path.write_text(yaml.safe_dump({**SWEEP, **changes}, sort_keys=False))


def test_a_sweep_runs_in_one_command_and_shares_what_it_can(project, capsys):
    write(project)
    plan = json.loads(run("plan", "lr", "--json").stdout)
    planned = [asset["asset"] for asset in plan["assets"]]
    # three datasets, θ₀, its pool, an order and a chunk; a training, two evaluations and the scores
    # of each; the leaderboard
    assert len(planned) == len(set(planned)) == 3 + 4 + 4 * (1 + 2 + 1) + 1
    lines = [line.split() for line in run("plan", "lr").stdout.splitlines()]
    folded = [line[:2] for line in lines if line[0].startswith("learning_rate")]
    assert folded == [[name.removeprefix("lr_"), "compute"] for name in NAMES]
    run_experiment("lr", [])
    printed = capsys.readouterr().out
    made = [line.split()[1] for line in printed.splitlines() if line.startswith("  computed")]
    shared = [key for key in made if not key.startswith("lr_") and key != "leaderboard"]
    assert sorted(shared) == sorted(key for key in planned if not key.startswith(("lr_", "leader")))
    assert sorted(made) == sorted(set(made))
    kinds = [name.partition("/")[0] for name in project.artifacts()]
    assert {kind: kinds.count(kind) for kind in ("backbone", "chunk", "shards", "trained")} == {
        "backbone": 1, "chunk": 1, "shards": 3, "trained": 4,
    }  # fmt: skip
    # the evaluations of θ₀ are one, by another name in each experiment
    heads = Heads(project.home.root / "heads")
    zero = [heads.read(f"{name}/evaluation_000") for name in NAMES]
    assert len({head.digest for head in zero}) == 1
    assert sorted(head.status for head in zero) == ["computed", "hit", "hit", "hit"]

    shown = run("results", "lr").stdout
    assert shown in printed
    header, *rows = [line.split() for line in shown.splitlines()[1:6]]
    assert header[:4] == ["learning_rate", "method", "stages", "KA"]
    assert {tuple(row[:2]) for row in rows} == {
        (rate, method) for rate in ("0.0001", "0.001") for method in ("full", "lora")
    }
    assert all(len(line) <= 80 for line in shown.splitlines()[:6])
    found = json.loads(run("results", "lr", "--json").stdout)
    assert {row["experiment"] for row in found["leaderboard"]} == set(NAMES)
    assert {row["learning_rate"] for row in found["leaderboard"]} == {1e-4, 1e-3}
    means = [row["geometric_mean"] for row in found["leaderboard"]]
    assert means == sorted(means, reverse=True)
    one = json.loads(run("results", "lr/learning_rate_1e_4_lora", "--json").stdout)
    assert {row["experiment"] for row in one["stages"]} == {"lr_learning_rate_1e_4_lora"}
    plan = json.loads(run("plan", "lr", "--json").stdout)
    assert {asset["status"] for asset in plan["assets"]} == {"hit"}


def test_an_experiment_that_fails_takes_no_other_with_it(finished_project, capsys):
    write(
        finished_project,
        sweep={"optimiser.learning_rate": [1e30, 1e-4]},
        mixture={"update": 0.5, "buffer": 0.5, "pretraining": 0},
    )
    with pytest.raises(
        DataError, match=r"lr: 1 of 2 experiments failed\n  lr_learning_rate_1e30: lr_"
    ):
        run_experiment("lr", [])
    printed = capsys.readouterr().out
    assert "lr_learning_rate_1e_4 is up to date" in printed
    shown = run("results", "lr").stdout
    assert shown in printed
    assert "without scores: lr_learning_rate_1e30" in shown
    broken = [line for line in printed.splitlines() if "failed" in line]
    assert len(broken) == 1


def test_what_needs_an_asset_that_failed_is_not_tried_again(project, capsys):
    write(project, sweep={"seed": [0, 1]})
    for picture in (project.root / "images" / "birds" / "train").rglob("*.png"):
        picture.write_bytes(b"no image")
    with pytest.raises(DataError, match="lr: 2 of 2 experiments failed") as raised:
        run_experiment("lr", [])
    assert str(raised.value).count("shards/birds: ") == 1
    assert str(raised.value).endswith("lr_seed_1: it needs shards/birds, which failed")
    capsys.readouterr()
    with pytest.raises(InputError, match="no experiment of lr has scores yet: `fomo run lr`"):
        run("results", "lr")


def test_dagster_has_every_experiment_of_a_sweep_and_a_job_for_all(project):
    write(project, cron_schedule="0 3 * * *")
    graph = build_project(project.root)
    repository = build_definitions(
        graph, RunContexts.of(project.home), COMMANDS
    ).get_repository_def()
    jobs = {job.name: job for job in repository.get_all_jobs() if not job.name.startswith("__")}
    assert jobs.keys() == {"toy", "lr", "observe_sources", "run_experiment"}
    selected = {key.to_user_string() for key in jobs["lr"].asset_layer.selected_asset_keys}
    assert selected == {node.key for node in graph.of(*NAMES)}
    assert {f"{name}/scores" for name in NAMES} <= selected
    assert "toy/scores" not in selected
    schedules = {schedule.name: schedule.job_name for schedule in repository.schedule_defs}
    assert schedules == {"lr_schedule": "lr", "observe_sources_schedule": "observe_sources"}


def test_a_run_of_one_of_a_sweep_is_in_the_history_of_the_sweeps_job(project):
    write(project)
    run("run", f"lr/{NAMES[0].removeprefix('lr_')}")
    (recorded,) = prepare(project.home).get_runs()
    assert recorded.job_name == "lr"
    assert recorded.tags[EXPERIMENT_TAG] == NAMES[0]
    assert recorded.remote_job_origin.job_name == "lr"
    assert all(key.path[0] != NAMES[1] for key in recorded.asset_selection)


def test_definitions_can_be_of_what_is_named_alone(project):
    write(project)
    graph = build_project(project.root)
    shown = [load_named(f"lr/{NAMES[0].removeprefix('lr_')}", project.root)]
    definitions = build_definitions(graph, RunContexts.of(project.home), COMMANDS, shown)
    repository = definitions.get_repository_def()
    made = {key.to_user_string() for key in repository.asset_graph.executable_asset_keys}
    assert {f"{NAMES[0]}/scores", "leaderboard"} <= made
    assert not {key for key in made if key.startswith((NAMES[1], "toy/"))}
    assert {"lr", "run_experiment"} <= {job.name for job in repository.get_all_jobs()}
    assert "toy" not in {job.name for job in repository.get_all_jobs()}


def test_the_ui_refuses_what_the_project_does_not_have(project, tmp_path, monkeypatch):
    write(project)
    with pytest.raises(InputError, match="nowhere"):
        shown_in_ui(["nowhere"])
    elsewhere = tmp_path / "elsewhere.yaml"
    elsewhere.write_text((project.root / "experiments" / "toy.yaml").read_text())
    with pytest.raises(InputError, match=r"does not lie in .*experiments itself.*: copy it there"):
        shown_in_ui([str(elsewhere)])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr").mkdir()  # no name of a file
    monkeypatch.setenv("FOMO_PROJECT", str(project.root))
    path = project.root / "experiments" / "toy.yaml"
    assert shown_in_ui(["lr", "toy", str(path)]) == ["lr", "toy", str(path)]
