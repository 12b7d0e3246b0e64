"""What `fomo run` shows: lines that fit, speeds and ends that are true, and events for programs."""

import io
import json
import os
import re
import signal
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Group

from fomo_dagster.cli.bars import Bars, shortened
from fomo_dagster.cli.main import main
from fomo_dagster.cli.output import Terminal
from fomo_dagster.cli.run_events import EVENTS, EventsView
from fomo_dagster.cli.run_view import TextView
from fomo_dagster.errors import StoppedError, TrainingError

LONG = "a_sweep_over_everything_learning_rate_1e_3_method_lora_rank_4_seed_12/trained_001"


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def node(key):
    return SimpleNamespace(key=key, kind="trained", experiment="toy", stage=1)


def head(key, status="computed"):
    return SimpleNamespace(
        asset=key, status=status, kind="trained", experiment="toy", stage=1, digest="abc"
    )


def train(view, clock, seconds, steps=1000):
    """Tell of so many seconds of a training of ten steps a second."""
    for second in range(seconds):
        clock.now += 1
        done = min(10 * (second + 1), steps)
        view.steps("toy/trained_001", "abc", [{"loss": 2.5, "samples_per_second": 812.4}])
        view.progress("training", done, steps, "loss 2.5000")


def test_a_log_has_a_line_at_begin_now_and_then_and_at_the_end(clock):
    console = Terminal(file=io.StringIO())
    view = TextView(console, clock)
    with view.materialising(["toy/trained_001", "leaderboard"]):
        view.begins(node("toy/trained_001"))
        view.begins(node("toy/trained_001"))  # its second artifact
        train(view, clock, 70)
        view.finished(head("toy/trained_001"), 185.0)
        view.finished(head("leaderboard", "hit"), 0.04)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "  begin    toy/trained_001"
    said = [re.sub(r", until \d\d:\d\d$", ", until", line) for line in lines[1:3]]
    assert said == [
        "  progress toy/trained_001  training 310 of 1,000, loss 2.5000, 812 samples/s, "
        "1 min 09 s left, until",
        "  progress toy/trained_001  training 610 of 1,000, loss 2.5000, 812 samples/s, "
        "39.0 s left, until",
    ]
    assert lines[3:] == [
        "  computed toy/trained_001  3 min 05 s",
        "  hit      leaderboard           0.0 s",
    ]


def test_a_log_says_when_a_wait_is_over(clock):
    console = Terminal(file=io.StringIO())
    view = TextView(console, clock)
    view.waiting("process 7, which is making the same")
    clock.now = 75
    view.goes_on()
    view.goes_on()
    assert console.file.getvalue().splitlines() == [
        "  waiting for process 7, which is making the same",
        "  waited   1 min 15 s",
    ]


def screen(width=80):
    console = Terminal(file=io.StringIO())
    console._force_terminal = console.is_interactive = console.no_color = True
    console.width = width
    return console


def shown(bars):
    """The lines below those that stay, as they are drawn."""
    console = Terminal(file=io.StringIO())
    console.width = 80
    console.print(Group(*bars._progress.get_renderables()))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_bars_of_long_names_are_a_line_each_and_a_wait_leaves_nothing(clock):
    view = TextView(screen(), clock)
    with view.materialising([LONG]):
        view.waiting("a training slot, taken by process 12, which is making toy/trained_002 in run")
        assert shown(view._bars)[0].startswith("waiting for a training slot")
        view.begins(node(LONG))
        train(view, clock, 3, steps=100_000)
        name, assets, training = shown(view._bars)
        view.finished(head(LONG), 7261.0)
        lines = re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", view.console.file.getvalue()).splitlines()
        (finished,) = [line.rstrip() for line in lines if "computed" in line]
        assert len(shown(view._bars)) == 1  # the bar of the assets
    assert cell_len(name) == 80
    assert name.startswith("a_sweep_over_everything_learning")
    assert name.endswith("/trained_001")
    assert assets.startswith("assets")
    assert " 0/1 " in assets
    assert training.startswith("training")
    assert " 30/100,000 loss 2.5000, 812 samples/s " in training
    assert "computed a_sweep_over" in finished
    assert finished.endswith("/trained_001  2 h 01 min")
    assert cell_len(finished) <= 80


def test_a_detail_too_long_for_the_line_is_cut_with_a_mark():
    bars = Bars(screen())
    bars("images of a_dataset_with_a_name_that_is_long", 7, 9, "unreadable " * 20)
    (line,) = shown(bars)
    assert cell_len(line) <= 80
    assert "…" in line


@given(st.text(max_size=60), st.integers(min_value=1, max_value=40))
def test_a_shortened_text_fits_and_keeps_both_ends(text, width):
    short = shortened(text, width)
    assert cell_len(short) <= width
    if short != text:
        start, _, end = short.partition("…")
        assert text.startswith(start)
        assert text.endswith(end)


def events_of(text):
    """The events, each with exactly the fields that its kind declares."""
    declared = {event.name: {"event", "time", *event.model_fields} for event in EVENTS}
    events = [json.loads(line) for line in text.splitlines()]
    for event in events:
        assert event.keys() == declared[event["event"]]
    return events


def test_events_tell_a_training_and_nothing_else_is_on_stdout(clock, capfd):
    with EventsView("toy", ["seed=3"], clock) as view:
        print("a library")
        os.write(1, b"a process\n")
        view.waiting("process 7")
        clock.now = 5
        view.begins(node("toy/trained_001"))
        train(view, clock, 100)
        view.warn("half of \udce9 image")
        view.finished(head("toy/trained_001"), 105.5)
    os.write(1, b"after\n")
    out, err = capfd.readouterr()
    assert "a library" in err
    assert "a process" in err
    *lines, last = out.splitlines()
    assert last == "after"
    first, waiting, waited, started, *rest = events_of("\n".join(lines))
    assert (first["event"], first["settings"]) == ("run_started", ["seed=3"])
    assert waiting["reason"] == "process 7"
    assert waited["seconds"] == 5
    assert (started["event"], started["asset"]) == ("asset_started", "toy/trained_001")
    *progress, warned, finished, ended = rest
    assert {event["asset"] for event in progress} == {"toy/trained_001"}
    assert progress[-1]["done"] == progress[-1]["total"] == 1000
    assert progress[0] | {"time": ""} == {
        "event": "progress", "time": "", "asset": "toy/trained_001", "work": "training",
        "done": 20, "total": 1000, "detail": "loss 2.5000", "loss": 2.5,
        "samples_per_second": 812.4, "seconds_left": 98.0,
    }  # fmt: skip
    assert warned["message"] == "half of \\udce9 image"
    assert (finished["status"], finished["seconds"]) == ("computed", 105.5)
    assert (ended["outcome"], ended["exit_status"], ended["error"]) == ("succeeded", 0, None)
    assert ended["seconds"] == 105


@pytest.mark.parametrize(
    ("error", "outcome", "status", "kind"),
    [
        (TrainingError("the loss is nan"), "failed", 1, "TrainingError"),
        (StoppedError(signal.SIGTERM, "the loss is nan"), "stopped", 143, "SIGTERM"),
        (KeyboardInterrupt("the loss is nan"), "stopped", 130, "SIGINT"),
        (OSError(28, "the loss is nan"), "failed", 1, "OSError"),
        (RuntimeError("the loss is nan"), "failed", 1, "RuntimeError"),
    ],
)
def test_the_last_event_tells_how_the_command_ended(error, outcome, status, kind, capsys):
    with pytest.raises(type(error)), EventsView("toy", []):
        raise error
    last = events_of(capsys.readouterr().out)[-1]
    assert (last["event"], last["outcome"], last["exit_status"]) == (
        "run_finished",
        outcome,
        status,
    )
    said = "stopped by SIGINT" if kind == "SIGINT" else "the loss is nan"
    assert last["error"] == {"kind": kind, "message": said}


def fomo(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["fomo", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def test_a_run_as_events_is_the_run_and_ends_with_its_status(finished_project, monkeypatch, capsys):
    (scores,) = finished_project.home.root.glob("store/scores/*")
    scores.rename(scores.with_name(f".{scores.name}"))
    finished_project.home.heads.path("toy/trained_002").unlink()
    assert fomo(monkeypatch, "run", "toy", "--json") == 0
    events = events_of(capsys.readouterr().out)
    assert [event["event"] for event in events[:3]] == [
        "run_started", "experiment_started", "planned",
    ]  # fmt: skip
    assert (events[2]["compute"], events[2]["hits"]) == (1, 17)
    finished = {e["asset"]: e["status"] for e in events if e["event"] == "asset_finished"}
    assert finished == {"toy/trained_002": "hit", "toy/scores": "computed"}
    assert [e["asset"] for e in events if e["event"] == "asset_started"] == ["toy/scores"]
    experiment, last = events[-2:]
    assert (experiment["outcome"], experiment["assets"], experiment["stage"]) == (
        "up_to_date", 18, 3,
    )  # fmt: skip
    assert experiment["scores"]["geometric_mean"] == pytest.approx(
        (experiment["scores"]["knowledge_accumulation"] * 100 / 3) ** 0.5
    )
    assert last["outcome"] == "succeeded"


def test_an_error_is_an_event_on_stdout_and_a_sentence_on_stderr(project, monkeypatch, capsys):
    assert fomo(monkeypatch, "run", "tox", "--json") == 2
    out, err = capsys.readouterr()
    last = events_of(out)[-1]
    assert (last["outcome"], last["exit_status"]) == ("failed", 2)
    assert last["error"]["kind"] == "InputError"
    assert err == f"error: {last['error']['message']}\n"
