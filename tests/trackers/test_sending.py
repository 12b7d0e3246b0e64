"""What one tracker does, nobody else notices; what a run has, it is not sent again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fomo_dagster.trackers.sending import Trackers
from fomo_dagster.trackers.tracker import Entry, Point, Run
from fomo_dagster.trackers.tracker_queue import Patience

QUICK = Patience(between=0.0, to_answer=0.2, to_close=10.0)
TOY = Run("toy", {"seed": 0})


class Recorder:
    """Keeps what it is sent, by the name of the run, over as many openings as there are."""

    destination = place = "memory"

    def __init__(self) -> None:
        self.points: dict[str, list[Point]] = {}
        self.parameters: dict[str, dict[str, str]] = {}
        self.opened: list[tuple[str, str | None, int]] = []
        self.closed: list[str] = []

    def open(self, run: Run, earlier: str | None, sent: int) -> Any:
        self.opened.append((run.name, earlier, sent))
        return _Recording(self, run.name)


class _Recording:
    def __init__(self, recorder: Recorder, name: str) -> None:
        self.id, self._recorder, self._name = f"id of {name}", recorder, name

    def log(self, points: Any, parameters: Any) -> None:
        self._recorder.points.setdefault(self._name, []).extend(points)
        self._recorder.parameters.setdefault(self._name, {}).update(parameters)

    def close(self) -> None:
        self._recorder.closed.append(self._name)


def steps(first: int, last: int, digest: str = "a", key: str = "trained_001/steps") -> Entry:
    points = tuple(Point("stage_001/loss", step, step / 8) for step in range(first, last))
    return Entry(key, digest, points)


def of_stage(stage: int, digest: str = "a") -> Entry:
    point = Point("scores/geometric_mean", stage, 50.0 + stage)
    return Entry(f"scores/{stage}", digest, (point,), {f"digests/{stage}": digest})


def send(tracker: Any, folder: Path, *entries: Entry) -> list[str]:
    """Send entries one by one, as a process of its own; the warnings."""
    warnings: list[str] = []
    trackers = Trackers({"memory": lambda: tracker}, folder, QUICK)
    for entry in entries:
        trackers.send(TOY, lambda entry=entry: [entry], warnings.append)  # type: ignore[misc]
    trackers.close(warnings.append)
    return warnings


def test_a_step_is_sent_once_however_often_a_training_is_resumed(tmp_path: Path) -> None:
    recorder = Recorder()
    send(recorder, tmp_path, steps(0, 3), steps(3, 5))
    send(recorder, tmp_path, steps(0, 4), steps(4, 6), steps(0, 6))
    assert [point.step for point in recorder.points["toy"]] == [0, 1, 2, 3, 4, 5]
    assert recorder.opened == [("toy", None, 0), ("toy", "id of toy", 5)]


def test_a_run_that_has_everything_is_not_even_opened(tmp_path: Path) -> None:
    recorder = Recorder()
    send(recorder, tmp_path, steps(0, 3), of_stage(1))
    send(recorder, tmp_path, steps(0, 3), of_stage(1))
    assert len(recorder.opened) == 1
    assert recorder.closed == ["toy"]
    assert recorder.parameters["toy"] == {"digests/1": "a"}


def test_what_was_made_otherwise_is_another_run_and_what_comes_back_is_the_first(
    tmp_path: Path,
) -> None:
    recorder = Recorder()
    send(recorder, tmp_path, of_stage(0), steps(0, 3), of_stage(1))
    send(recorder, tmp_path, steps(0, 2, "b"), of_stage(0), of_stage(1, "b"))
    assert [point.step for point in recorder.points["toy_2"]] == [0, 1, 0, 1]
    before = {name: list(points) for name, points in recorder.points.items()}
    send(recorder, tmp_path, of_stage(0), steps(0, 3), of_stage(1))
    assert recorder.points == before
    send(recorder, tmp_path, of_stage(2))
    assert recorder.points["toy"][-1] == Point("scores/geometric_mean", 2, 52.0)
    assert recorder.points["toy_2"] == before["toy_2"]


def test_a_run_that_is_gone_is_begun_anew(tmp_path: Path) -> None:
    recorder = Recorder()
    send(recorder, tmp_path, steps(0, 3))
    (ledger,) = tmp_path.glob("memory_*/toy.json")
    ledger.write_text(ledger.read_text().replace("id of toy", "another"))
    send(recorder, tmp_path, steps(0, 4))
    assert [point.step for point in recorder.points["toy"]] == [0, 1, 2, 0, 1, 2, 3]


def test_another_destination_is_sent_everything(tmp_path: Path) -> None:
    first, second = Recorder(), Recorder()
    second.destination = "elsewhere"
    for recorder in (first, second):
        send(recorder, tmp_path, steps(0, 3))
    assert first.points == second.points


class Broken(Recorder):
    """Fails, or never returns, where it is told to."""

    def __init__(self, where: str, do: Callable[[], None]) -> None:
        super().__init__()
        self.where, self.do = where, do

    def open(self, run: Run, earlier: str | None, sent: int) -> Any:
        if self.where == "open":
            self.do()
        opened = super().open(run, earlier, sent)
        if self.where in ("log", "close"):
            setattr(opened, self.where, lambda *_: self.do())
        return opened


def fail() -> None:
    raise ConnectionError("no route to host\nand a page of HTML")


@pytest.mark.parametrize("where", ["make", "open", "log", "close"])
def test_a_tracker_that_fails_is_said_once_and_the_others_get_everything(
    tmp_path: Path, where: str
) -> None:
    def make() -> Any:
        if where == "make":
            fail()
        return Broken(where, fail)

    recorder, warnings = Recorder(), list[str]()
    trackers = Trackers({"broken": make, "memory": lambda: recorder}, tmp_path, QUICK)
    for step in range(20):
        entry = steps(step, step + 1)
        trackers.send(TOY, lambda entry=entry: [entry], warnings.append)  # type: ignore[misc]
        time.sleep(0.002)
    trackers.close(warnings.append)
    assert [point.step for point in recorder.points["toy"]] == list(range(20))
    (warning,) = warnings
    assert warning.startswith("tracker broken failed and is switched off")
    tried = {
        "make": "it could not be started: no route to host. ",
        "open": "it could not open run 'toy' at memory: no route to host. ",
        "log": "it could not send to run 'toy' at memory: no route to host. ",
        "close": "it could not finish run 'toy': no route to host. ",
    }
    assert tried[where] in warning
    assert "HTML" not in warning


def test_what_a_failed_tracker_did_not_get_is_sent_by_the_next_run(tmp_path: Path) -> None:
    assert send(Broken("log", fail), tmp_path, steps(0, 3), steps(3, 5))
    recorder = Recorder()
    assert not send(recorder, tmp_path, steps(0, 5))
    assert [point.step for point in recorder.points["toy"]] == [0, 1, 2, 3, 4]


def test_a_damaged_account_of_what_was_sent_is_named(tmp_path: Path) -> None:
    assert not send(Recorder(), tmp_path, steps(0, 3))
    (account,) = tmp_path.rglob("toy.json")
    account.write_text('{"half')
    (warning,) = send(Recorder(), tmp_path, steps(0, 3))
    assert f"{account}, which records what was sent, cannot be read: delete it" in warning
    account.unlink()
    recorder = Recorder()
    assert not send(recorder, tmp_path, steps(0, 3))
    assert [point.step for point in recorder.points["toy"]] == [0, 1, 2]


def test_a_tracker_that_does_not_answer_holds_nobody_up(tmp_path: Path) -> None:
    released, warnings = threading.Event(), list[str]()
    hanging = Broken("open", lambda: released.wait() and None)
    trackers = Trackers({"memory": lambda: hanging}, tmp_path, QUICK)
    began = time.monotonic()
    while not warnings and time.monotonic() - began < 20:
        trackers.send(TOY, lambda: [steps(0, 1)], warnings.append)
        time.sleep(0.01)
    assert "no answer for 0.2 s" in warnings[0]
    trackers.close(warnings.append)
    assert len(warnings) == 1
    released.set()


def test_closing_waits_for_no_tracker_for_ever(tmp_path: Path) -> None:
    released, warnings = threading.Event(), list[str]()
    hanging = Broken("log", lambda: released.wait() and None)
    patience = Patience(between=0.0, to_answer=60.0, to_close=0.1)
    trackers = Trackers({"memory": lambda: hanging}, tmp_path, patience)
    trackers.send(TOY, lambda: [steps(0, 1)], warnings.append)
    trackers.close(warnings.append)
    (warning,) = warnings
    assert "no answer for 0.1 s at the end" in warning
    released.set()


def test_many_runs_are_not_all_open_at_once(tmp_path: Path) -> None:
    recorder = Recorder()
    trackers = Trackers({"memory": lambda: recorder}, tmp_path, QUICK)
    for number in range(6):
        run = Run(f"toy_{number}", {})
        trackers.send(run, lambda: [steps(0, 1)], pytest.fail)
    trackers.close(pytest.fail)
    assert sorted(recorder.closed) == [f"toy_{number}" for number in range(6)]
    assert recorder.closed[0] == "toy_0"


def test_much_is_sent_in_pieces_of_whole_steps_each_of_which_is_noted(tmp_path: Path) -> None:
    entry = Entry(
        "trained_001/steps",
        "a",
        tuple(Point(f"stage_001/{figure}", step, 0.5) for step in range(900) for figure in "abcd"),
    )

    class FailingAtTheThird(Recorder):
        def open(self, run: Run, earlier: str | None, sent: int) -> Any:
            opened = super().open(run, earlier, sent)
            log, self.pieces = opened.log, 0

            def counted(points: Any, parameters: Any) -> None:
                self.pieces += 1
                if self.pieces == 3:
                    fail()
                log(points, parameters)

            opened.log = counted
            return opened

    recorder = FailingAtTheThird()
    assert send(recorder, tmp_path, entry)
    assert len(recorder.points["toy"]) == 2000
    whole = Recorder()
    send(whole, tmp_path, entry)
    assert (*recorder.points["toy"], *whole.points["toy"]) == entry.points
