"""`fomo plan --parallel`: how long a plan takes on slots, in print and as data."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fomo_dagster.cli import parallel
from fomo_dagster.cli.main import app
from fomo_dagster.cli.schedule_view import ScheduleView
from fomo_dagster.errors import InputError
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.graph.run.run_context import RunContext

SECONDS = {"backbone": 30.0, "trained": 60.0, "evaluation": 90.0, "shards": 5.0}


def view_of(project, slots, seconds=SECONDS):
    """Of the toy, whose assets take so long by their kinds, the last stage's training 100 s."""
    graph = project.graph()
    nodes = graph.of("toy")
    planned = [
        replace(entry, estimated_seconds=seconds.get(entry.kind))
        if entry.asset != "toy/trained_003" or not seconds
        else replace(entry, estimated_seconds=100.0)
        for entry in plan(nodes, RunContext(graph, project.home))
    ]
    return ScheduleView.of(nodes, planned, slots)


def printed(view):
    console = Console(file=io.StringIO(), width=200)
    view.print(console)
    return console.file.getvalue().splitlines()


def test_a_plan_says_how_long_it_takes_on_slots_and_what_holds_it_up(project):
    view = view_of(project, 2)
    # Shards, θ₀, three stages, the last one's evaluation; the others are evaluated meanwhile.
    seconds, work = 5 + 30 + 60 + 60 + 100 + 90, 30 + 60 + 60 + 100 + 4 * 90
    assert printed(view)[:3] == [
        "2 slots: about 5 min 45 s, 88% of their time used",
        "work on devices: 10 min 10 s; longest chain: 5 min 45 s, 6 assets",
        "held up most by toy/trained_003: 1 min 40 s, 29% of the longest chain",
    ]
    assert printed(view_of(project, 1))[0] == "1 slot: about 10 min 15 s, 99% of their time used"
    assert view.as_data() == {
        "slots": 2,
        "estimated_seconds": seconds,
        "work_seconds": work,
        "utilisation": work / (2 * seconds),
        "critical_path": {
            "seconds": seconds,
            "assets": [
                "shards/old", "backbones/toy", "toy/trained_001", "toy/trained_002",
                "toy/trained_003", "toy/evaluation_003",
            ],
        },
        "bottleneck": {"asset": "toy/trained_003", "seconds": 100, "share": 100 / seconds},
        "assumed_seconds": dict.fromkeys(
            ("pool", "order", "chunk", "scores", "leaderboard"), 0
        ),
    }  # fmt: skip


def test_what_was_never_computed_is_named_with_what_is_assumed_of_it(project):
    known = {kind: s for kind, s in SECONDS.items() if kind not in ("evaluation", "shards")}
    assert printed(view_of(project, 1, known))[-1] == (
        "never computed here: shards, pool, order, chunk, scores, leaderboard (taken as no time); "
        "evaluation (taken as 1 min 00 s each)"
    )


def test_without_any_estimate_no_time_is_said(project):
    view = view_of(project, 2, {})
    assert printed(view) == [
        "2 slots: no estimate, because nothing that needs a device was computed here yet; 8 assets "
        "need one, 5 of them in the longest chain",
        "never computed here: shards, pool, backbone, order, chunk, evaluation, trained, scores, "
        "leaderboard",
    ]
    data = view.as_data()
    assert data["estimated_seconds"] is data["utilisation"] is data["bottleneck"] is None
    assert data["critical_path"]["seconds"] is None
    assert len(data["critical_path"]["assets"]) == 5
    assert set(data["assumed_seconds"].values()) == {None}


def test_more_devices_than_slots_are_refused_before_anything_is_printed(project):
    command = ["plan", "toy", "--set", "execution.processes=4", "--parallel", "2"]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, InputError)
    assert "backbones/toy needs 4 devices" in str(result.exception)
    assert "toy/trained_001" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "slots"),
    [
        (["toy", "--parallel", "--json"], 7),
        (["toy", "--json", "--parallel"], 7),
        (["--parallel", "--json", "--", "toy"], 7),
        (["--parallel", "3", "toy", "--json"], 3),
        (["toy", "--parallel=64", "--json"], 64),
    ],
)
def test_slots_are_the_number_given_or_else_the_devices(project, monkeypatch, arguments, slots):
    monkeypatch.setattr(parallel, "default_slots", lambda: 7)
    result = CliRunner().invoke(app, ["plan", *arguments], catch_exceptions=False)
    assert json.loads(result.stdout)["parallel"]["slots"] == slots


@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5", ""])
def test_what_is_no_number_of_slots_is_refused_with_the_value(project, value):
    result = CliRunner().invoke(app, ["plan", "toy", "--parallel", value])
    assert result.exit_code == 2
    said = " ".join(result.stderr.replace("│", " ").split())
    assert f"{value!r} is no number of slots: give a whole number from 1 on" in said


def test_a_plan_of_nothing_takes_no_time(finished_project):
    result = CliRunner().invoke(app, ["plan", "toy", "--parallel", "2"], catch_exceptions=False)
    assert result.stdout.splitlines()[-2:] == [
        "0 to compute, 18 hits",
        "2 slots: nothing to compute",
    ]
    assert "parallel" not in json.loads(CliRunner().invoke(app, ["plan", "toy", "--json"]).stdout)
