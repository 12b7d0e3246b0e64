"""What `fomo run` shows: lines that fit, speeds and ends that are true, and events for programs."""

import io
import json
import os
import re
import signal
import sys
import time
from threading import Thread
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Group

from assets.specs import key_of
from fomo_dagster.cli import run_bars
from fomo_dagster.cli.bars import Bars, shortened
from fomo_dagster.cli.events import EVENTS
from fomo_dagster.cli.main import main
from fomo_dagster.cli.materialising import _ShownRunContexts
from fomo_dagster.cli.output import Terminal
from fomo_dagster.cli.run_events import EventsView
from fomo_dagster.cli.run_view import TextView
from fomo_dagster.errors import StoppedError, TrainingError
from fomo_dagster.graph.run.clusters import LocalCluster
from fomo_dagster.graph.run.tracking import Tracking
from fomo_dagster.trackers.sending import Trackers

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


def train(step, clock, seconds, steps=1000):
    """Tell of so many seconds of a training of ten steps a second."""
    for second in range(seconds):
        clock.now += 1
        done = min(10 * (second + 1), steps)
        step.steps("toy/trained_001", "abc", [{"loss": 2.5, "samples_per_second": 812.4}])
        step.progress("training", done, steps, "loss 2.5000")


def test_a_log_has_a_line_at_begin_now_and_then_and_at_the_end(clock):
    console = Terminal(file=io.StringIO())
    view = TextView(console, clock)
    with view.materialising(["toy/trained_001", "leaderboard"]):
        step = view.step("toy/trained_001")
        step.begins(node("toy/trained_001"))
        step.begins(node("toy/trained_001"))  # its second artifact
        train(step, clock, 70)
        step.finished(head("toy/trained_001"), 185.0)
        view.step("leaderboard").finished(head("leaderboard", "hit"), 0.04)
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


def screen(width=80, file=None):
    console = Terminal(file=file or io.StringIO())
    console._environ = {"TERM": "xterm"}
    console._force_terminal = console.is_interactive = console.no_color = True
    console.size = (width, 24)
    return console


def on_terminal(written):
    """The lines that a terminal has in the end, of what a live display wrote."""
    rows, at = [""], 0
    for piece in re.findall(r"\x1b\[[^A-Za-z]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if piece == "\n":
            at += 1
            rows += [""] * (at == len(rows))
        elif piece == "\x1b[2K":
            rows[at] = ""
        elif piece == "\x1b[1A":
            at -= 1
        elif not piece.startswith(("\x1b", "\r")):
            rows[at] += piece
    return [row.rstrip() for row in rows if row.strip()]


def shown(bars):
    """The lines below those that stay, as they are drawn."""
    console = Terminal(file=io.StringIO())
    console.width = 80
    console.print(Group(*bars._progress.get_renderables()))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_bars_of_long_names_are_a_line_each_and_a_wait_leaves_nothing(clock):
    view = TextView(screen(), clock)
    with view.materialising([LONG]):
        step = view.step(LONG)
        step.waiting("a training slot, taken by process 12, which is making toy/trained_002 in run")
        assert shown(view.bars)[0].startswith("waiting for a training slot")
        step.begins(node(LONG))
        train(step, clock, 3, steps=100_000)
        name, assets, training = shown(view.bars)
        step.finished(head(LONG), 7261.0)
        lines = re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", view.console.file.getvalue()).splitlines()
        (finished,) = [line.rstrip() for line in lines if "computed" in line]
        assert len(shown(view.bars)) == 1  # the bar of the assets
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


@pytest.mark.slow
@given(st.text(max_size=60), st.integers(min_value=1, max_value=40))
def test_a_shortened_text_fits_and_keeps_both_ends(text, width):
    short = shortened(text, width)
    assert cell_len(short) <= width
    if short != text:
        start, _, end = short.partition("…")
        assert text.startswith(start)
        assert text.endswith(end)


def test_two_steps_in_turn_have_a_pace_and_a_wait_each(clock):
    console = Terminal(file=io.StringIO())
    view = TextView(console, clock)
    with view.materialising(["a/trained_001", "b/trained_001", "b/trained_002"]):
        a, b, c = (view.step(key) for key in ("a/trained_001", "b/trained_001", "b/trained_002"))
        a.begins(node("a/trained_001"))
        b.waiting("a device, taken by process 7")
        c.waiting("a device, taken by process 7")
        for second in range(62):
            clock.now = second
            a.steps("a/trained_001", "abc", [{"samples_per_second": 100.0}])
            a.progress("training", second, 124, "loss 2.0000")
            if second == 40:
                b.begins(node("b/trained_001"))
            if second >= 40:
                b.progress("training", 10 * (second - 40), 1000)
        view.failed("a/trained_001", TrainingError("a/trained_001: the loss is nan"))
        b.finished(head("b/trained_001"), 22.0)
        c.finished(head("b/trained_002", "hit"), 0.5)
    lines = [line.partition(", until")[0] for line in console.file.getvalue().splitlines()]
    assert lines == [
        "  begin    a/trained_001",
        "  waiting  b/trained_001  for a device, taken by process 7",
        "  waiting  b/trained_002  for a device, taken by process 7",
        "  progress a/trained_001  training 30 of 124, loss 2.0000, 100 samples/s, 1 min 34 s left",
        "  waited   b/trained_001  40.0 s",
        "  begin    b/trained_001",
        "  progress a/trained_001  training 60 of 124, loss 2.0000, 100 samples/s, 1 min 04 s left",
        "  failed   a/trained_001: the loss is nan",
        "  computed b/trained_001      22.0 s",
        "  waited   b/trained_002  1 min 01 s",
        "  hit      b/trained_002       0.5 s",
    ]


def test_several_assets_have_a_bar_each_the_waiting_a_line_and_all_come_last(clock):
    keys = [f"lr_learning_rate_1e_{n}/trained_001" for n in range(4)]
    view = TextView(screen(), clock)
    with view.materialising([*keys, "leaderboard"]):
        steps = [view.step(key) for key in keys]
        for step, key in zip(steps[:2], keys, strict=False):
            step.begins(node(key))
            train(step, clock, 3)
        steps[1].progress("images of a_dataset", 7, 90)
        first, second, assets = shown(view.bars)
        for step in steps[2:]:
            step.waiting("a device, taken by process 7")
        waits = shown(view.bars)[2]
        steps[3].waiting("process 8, which is making the same")
        mixed = shown(view.bars)[2]
        steps[1].progress("images of a_dataset", 90, 90)  # and training goes on
        steps[0].finished(head(keys[0]), 5.0)
        alone, _, after = shown(view.bars)
    assert first.startswith("lr_l…1e_0/trained_001 training ")
    assert first[46:].startswith("30/1,000 loss 2.5000, 812")
    assert second.startswith("lr_l…1e_1/trained_001 image…ataset ")
    assert second[46:].startswith("7/90 ")
    assert assets.startswith("assets ")
    assert assets[46:].startswith("0/5 ")
    assert max(map(cell_len, (first, second, assets))) == 80
    assert waits == "2 wait for a device: lr_l…1e_2/trained_001, lr_l…1e_3/trained_001"
    assert mixed.startswith(
        "1 waits for a device: lr_l…1e_2/trained_001; 1 waits for process 8: lr_"
    )
    assert mixed.endswith("…")
    assert cell_len(mixed) == 80
    assert alone.startswith("lr_l…1e_1/trained_001 training ")
    assert " 1/5 " in after


def test_long_names_of_a_sweep_lose_what_all_begin_with_first(clock):
    names = [f"lr_learning_rate_1e_{n}_lora" for n in (3, 4)]
    keys = [f"{name}/trained_001" for name in names]
    view = TextView(screen(), clock)
    for number, name in enumerate(names, 1):
        view.experiment(name, number, 2)
    with view.materialising([*keys, "shards/lr_birds"]):
        first, second = (view.step(key) for key in keys)
        first.begins(node(keys[0]))
        alone = shown(view.bars)[0]
        second.waiting("a device, taken by process 7")
        training, waits, _ = shown(view.bars)
        second.begins(node("shards/lr_birds"))
        shared = shown(view.bars)[1]
        view.console.width = 84
        roomier = shown(view.bars)[0]
        view.console.width = 100
        whole = shown(view.bars)[0]
    assert alone == keys[0]
    assert training.startswith("…3_lora/trained_001 ")
    assert waits == "…4_lora/trained_001 waits for a device, taken by process 7"
    assert shared.startswith("shards/lr_birds ")
    assert roomier.startswith("…1e_3_lora/trained_001 ")
    assert whole.startswith("lr_learning_rate_1e_3_lora/trained_001 ")


def test_a_step_that_is_tried_again_leaves_no_bar_of_before(clock):
    view = TextView(screen(), clock)
    with view.materialising(["a/trained_001"]):
        view.step("a/trained_001").begins(node("a/trained_001"))
        again = view.step("a/trained_001")
        assert len(shown(view.bars)) == 1  # the bar of all
        again.waiting("a device, taken by process 7")
        assert shown(view.bars)[0] == "waiting for a device, taken by process 7"


def test_bars_that_do_not_fit_the_terminal_are_counted(clock):
    keys = [f"run_{n:02}/trained_001" for n in range(40)]
    view = TextView(screen(), clock)
    with view.materialising(keys):
        for key in keys:
            view.step(key).begins(node(key))
        lines = shown(view.bars)
        view.failed(keys[0], TrainingError("the loss is nan"))
        next_one = shown(view.bars)[0]
    assert len(lines) == 21
    assert lines[-2] == "and 21 more"
    assert lines[-1].startswith("assets ")
    assert [line.split()[0] for line in lines[:19]] == keys[:19]
    assert next_one.startswith(keys[1])


class SlowFile(io.StringIO):
    """Lets other threads come between the pieces of what one writes."""

    def write(self, text):
        for half in (text[: len(text) // 2], text[len(text) // 2 :]):
            super().write(half)
            time.sleep(0.0002)
        return len(text)


def by_four_threads(view, clock):
    """Tell of 12 assets that wait and are trained, three by each thread; their keys."""
    keys = [f"run_{n}/trained_{stage:03}" for n in range(4) for stage in range(3)]

    def make(keys):
        for key in keys:
            step = view.step(key)
            step.waiting("a device, taken by process 7")
            step.begins(node(key))
            for done in range(1, 11):
                time.sleep(0.001)
                step.progress("training", done, 10)
            step.finished(head(key), 5.0)

    with view.materialising(keys):
        threads = [Thread(target=make, args=(keys[3 * n :][:3],)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return keys


def test_threads_tear_no_line_of_a_terminal_and_bars_leave_none(clock, monkeypatch):
    monkeypatch.setattr(run_bars, "SECONDS_BETWEEN_DRAWINGS", 0.001)
    view = TextView(screen(file=SlowFile()), clock)
    keys = by_four_threads(view, clock)
    left = on_terminal(view.console.file.getvalue())
    assert sorted(left) == sorted(f"  computed {key}       5.0 s" for key in keys)


def test_threads_tear_no_event(clock, monkeypatch):
    monkeypatch.setattr(sys, "stdout", SlowFile())
    with EventsView("lr", [], clock) as view:
        keys = by_four_threads(view, clock)
    events = events_of(view._file.getvalue())
    of = {key: [e["event"] for e in events if e.get("asset") == key] for key in keys}
    for told in of.values():
        assert told[:3] == ["waiting", "waited", "asset_started"]
        assert set(told[3:-1]) == {"progress"}
        assert told[-1] == "asset_finished"


def test_experiments_of_a_sweep_end_in_any_order(clock):
    console = Terminal(file=io.StringIO())
    view = TextView(console, clock)
    for number, name in enumerate(["lr_a", "lr_b", "lr_c"], 1):
        view.experiment(name, number, 3)
    entries = [SimpleNamespace(status="compute"), SimpleNamespace(status="hit")]
    view.planned("lr_b", entries)
    view.planned("lr_a", entries)
    view.not_up_to_date("lr_b", TrainingError("lr_b/trained_001: the loss is nan"))
    view.up_to_date(SimpleNamespace(experiment=SimpleNamespace(name="lr_c")), 18)
    view.not_up_to_date("lr_a", TrainingError("shards/birds: no image"))
    assert console.file.getvalue().splitlines() == [
        "lr_b (2 of 3): 1 asset to compute, 1 hit",
        "lr_a (1 of 3): 1 asset to compute, 1 hit",
        "  failed   lr_b/trained_001: the loss is nan",
        "lr_c is up to date (18 assets); 2 of 3 ended",
        "  failed   lr_a: shards/birds: no image",
    ]


def test_events_of_two_steps_name_their_assets(clock, capsys):
    with EventsView("lr", [], clock) as view:
        a, b = view.step("a/trained_001"), view.step("streams/b")
        a.begins(node("a/trained_001"))
        b.waiting("a device, taken by process 7")
        for second in range(4):
            clock.now = second
            a.steps("a/trained_001", "abc", [{"loss": second, "samples_per_second": 9.0}])
            a.progress("training", second, 60)
            if second == 2:
                b.begins(node("streams/b/chunk_001"))
                b.finished(head("streams/b/chunk_001"), 0.0)
                b.waiting("process 8")
                b.begins(node("streams/b/chunk_002"))
                b.progress("images", 5, 5)
        a.finished(head("a/trained_001"), 3.0)
        b.finished(head("streams/b/chunk_002"), 1.0)
    events = events_of(capsys.readouterr().out)[1:-1]
    told = [
        [event["event"], event["asset"], *(event[key] for key in keys if key in event)]
        for event in events
        for keys in [("done", "loss", "seconds_left", "reason", "seconds")]
    ]
    assert told == [
        ["asset_started", "a/trained_001"],
        ["waiting", "streams/b", "a device, taken by process 7"],
        ["progress", "a/trained_001", 1, 1.0, 59.0],
        ["progress", "a/trained_001", 2, 2.0, 58.0],
        ["waited", "streams/b", 2],
        ["asset_started", "streams/b/chunk_001"],
        ["asset_finished", "streams/b/chunk_001", 0.0],
        ["waiting", "streams/b", "process 8"],
        ["waited", "streams/b", 0],
        ["asset_started", "streams/b/chunk_002"],
        ["progress", "streams/b/chunk_002", 5, None, None],
        ["progress", "a/trained_001", 3, 3.0, 57.0],
        ["asset_finished", "a/trained_001", 3.0],
        ["asset_finished", "streams/b/chunk_002", 1.0],
    ]


def test_each_step_of_a_run_tells_of_its_own_asset(project):
    graph, console = project.graph(), Terminal(file=io.StringIO())
    view = TextView(console)
    tracking = Tracking(graph, project.home, Trackers.none(), view.warn)
    run_contexts = _ShownRunContexts(project.home, view, tracking, LocalCluster(), {})
    training, chunks = (
        run_contexts.open(
            graph, SimpleNamespace(selected_asset_keys=keys, run=SimpleNamespace(run_id="a-run"))
        )
        for keys in (
            {key_of("toy/trained_001")},
            {key_of("streams/toy/chunk_002"), key_of("streams/toy/chunk_003")},
        )
    )
    training.callbacks.waiting("a device, taken by process 7")
    chunks.callbacks.waiting("process 8, which is making the same")
    training.run.begins(graph.nodes["toy/trained_001"])
    chunks.run.begins(graph.nodes["streams/toy/chunk_003"])
    assert console.file.getvalue().splitlines() == [
        "  waiting  toy/trained_001  for a device, taken by process 7",
        "  waiting  streams/toy  for process 8, which is making the same",
        "  waited   toy/trained_001  0.0 s",
        "  begin    toy/trained_001",
        "  waited   streams/toy  0.0 s",
        "  begin    streams/toy/chunk_003",
    ]


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
        view.goes_on()
        step = view.step("toy/trained_001")
        step.begins(node("toy/trained_001"))
        train(step, clock, 100)
        view.warn("half of \udce9 image")
        step.finished(head("toy/trained_001"), 105.5)
    os.write(1, b"after\n")
    out, err = capfd.readouterr()
    assert "a library" in err
    assert "a process" in err
    *lines, last = out.splitlines()
    assert last == "after"
    first, waiting, waited, started, *rest = events_of("\n".join(lines))
    assert (first["event"], first["settings"]) == ("run_started", ["seed=3"])
    assert (waiting["asset"], waiting["reason"]) == (None, "process 7")
    assert (waited["asset"], waited["seconds"]) == (None, 5)
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
