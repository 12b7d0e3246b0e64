"""What a step writes into Dagster's log while it waits and works."""

from threading import Barrier, Thread
from types import SimpleNamespace

import pytest

from resources import run_contexts
from resources.run_contexts import RunContexts

CLOCK = SimpleNamespace(seconds=0.0)


@pytest.fixture
def step(project, monkeypatch):
    """A step's run context, and the lines of its log."""
    monkeypatch.setattr(run_contexts.time, "monotonic", lambda: CLOCK.seconds)
    lines = []
    log = SimpleNamespace(info=lines.append, warning=lines.append)
    run = SimpleNamespace(run_id="a-run")
    opened = RunContexts.of(project.home).open(
        project.graph(), SimpleNamespace(log=log, run=run, selected_asset_keys=())
    )
    return opened, lines


@pytest.mark.parametrize("then", ["begins", "progress", "finished"])
def test_a_wait_that_is_over_is_said_once_with_how_long_it_took(step, then):
    context, lines = step
    goes_on = {
        "begins": lambda: context.run.begins(context.graph.nodes["leaderboard"]),
        "progress": lambda: context.callbacks.progress("toy", 1, 9),
        "finished": lambda: context.run.finished(SimpleNamespace(asset="leaderboard"), 0.0),
    }[then]
    CLOCK.seconds = 0.0
    goes_on()
    assert lines == []
    context.callbacks.waiting("process 7, which is making the same")
    CLOCK.seconds = 2.0
    context.callbacks.waiting("a training slot, taken by process 8")
    CLOCK.seconds = 5.0
    goes_on()
    goes_on()
    assert lines == [
        "waiting for process 7, which is making the same",
        "waiting for a training slot, taken by process 8",
        "the wait is over after 5.0 s",
    ]


def test_two_steps_wait_each_for_itself_and_two_threads_end_a_wait_once(step):
    context, lines = step
    other = RunContexts.of(context.home).open(
        context.graph,
        SimpleNamespace(
            log=SimpleNamespace(info=lines.append, warning=lines.append),
            run=SimpleNamespace(run_id="a-run"),
            selected_asset_keys=(),
        ),
    )
    CLOCK.seconds = 0.0
    context.callbacks.waiting("process 7")
    other.callbacks.waiting("process 8")
    CLOCK.seconds = 3.0
    both = Barrier(2)

    def tell():
        both.wait()
        context.callbacks.progress("toy", 1, 9)

    threads = [Thread(target=tell) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    CLOCK.seconds = 5.0
    other.callbacks.progress("toy", 1, 9)
    assert lines == [
        "waiting for process 7",
        "waiting for process 8",
        "the wait is over after 3.0 s",
        "the wait is over after 5.0 s",
    ]
