"""Leases and slots: held by one at a time, in turn, and by nobody whose process is gone."""

import os
import signal
import threading
import time

import pytest

from fomo_dagster.store.leases import lease, slot


def wait_until(true):
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def paths(tmp_path):
    return [tmp_path / f"slot_{number}" for number in range(2)]


def silent(notes):
    pass


def test_as_many_hold_a_slot_as_there_are_and_the_next_is_told_of_all(paths):
    told, order = [], []
    with slot(paths, "one", silent) as first:
        with slot(paths, "two", silent) as second:

            def third():
                with slot(paths, "three", told.append) as waited:
                    order.append(waited)

            thread = threading.Thread(target=third)
            thread.start()
            wait_until(lambda: told)
            assert not order
        thread.join(20)
        assert order == [True]
    assert (first, second) == (False, False)
    assert told == [["one", "two"]]
    assert not any(path.exists() for path in paths)


def test_who_waits_hears_of_another_holder(paths):
    (path, _), told = paths, []
    with slot([path], "one", silent):

        def third():
            with slot([path], "three", told.append):
                pass

        thread = threading.Thread(target=third)
        with lease(path.with_name("queue")):
            thread.start()
            wait_until(lambda: told == [["one"]])
            path.write_text("two")  # as another that came first
        wait_until(lambda: told == [["one"], ["two"]])
    thread.join(20)


def test_a_holder_that_has_not_yet_said_who_it_is_is_asked_again(tmp_path):
    path, told = tmp_path / "lease", []
    with lease(path) as first:
        path.write_text("")  # as in the moment between its lock and its note

        def other():
            with lease(path, told.append) as waited:
                told.append(waited)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.2)
        path.write_text("77")
        wait_until(lambda: told)
    thread.join(20)
    assert (first, told) == (False, ["77", True])


def test_who_has_just_let_go_of_a_slot_comes_after_who_waits(paths):
    order, waits = [], threading.Event()

    def other():
        with slot(paths[:1], "other", lambda notes: waits.set()):
            order.append("other")

    thread = threading.Thread(target=other)
    with slot(paths[:1], "self", silent):
        thread.start()
        assert waits.wait(20)
    with slot(paths[:1], "self", silent):
        order.append("self")
    thread.join(20)
    assert order == ["other", "self"]


@pytest.mark.kill
@pytest.mark.parametrize("held", [lease, lambda path: slot([path], "it", silent)])
def test_what_a_killed_process_held_is_free_although_its_child_lives(tmp_path, held):
    """As of a training's loader processes, which were forked and notice late."""
    path, ready = tmp_path / "slot_0", tmp_path / "ready"
    holder = os.fork()
    if holder == 0:
        holding = held(path)
        holding.__enter__()
        if os.fork() == 0:
            ready.write_text(str(os.getpid()))
        time.sleep(60)
        os._exit(0)
    wait_until(lambda: ready.exists() and ready.read_text())
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    began = time.monotonic()
    with held(path):
        assert time.monotonic() - began < 5
    os.kill(int(ready.read_text()), signal.SIGKILL)


def test_who_is_stopped_while_it_waits_leaves_nothing(paths):
    def stop(notes):
        raise KeyboardInterrupt

    with slot(paths[:1], "one", silent):
        with pytest.raises(KeyboardInterrupt), slot(paths[:1], "two", stop):
            pytest.fail("it was held by two")
        assert [path.name for path in paths[0].parent.iterdir()] == ["slot_0"]
