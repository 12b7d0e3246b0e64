"""Leases and slots: held by one at a time, in turn, and by nobody whose process is gone."""

import os
import signal
import threading
import time

import pytest

from fomo_dagster.store.leases import lease, slots


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


def stop(notes):
    raise KeyboardInterrupt


def test_as_many_hold_a_slot_as_there_are_and_the_next_is_told_of_all(paths):
    told, order = [], []
    with slots(paths, "one", silent) as first:
        with slots(paths, "two", silent) as second:

            def wait_for_one():
                with slots(paths, "three", told.append) as third:
                    order.append(third.waited)

            thread = threading.Thread(target=wait_for_one)
            thread.start()
            wait_until(lambda: told)
            assert not order
        thread.join(20)
        assert order == [True]
    assert (first.waited, second.waited) == (False, False)
    assert (first.paths, second.paths) == ((paths[0],), (paths[1],))
    assert told == [["one", "two"]]
    assert not any(path.exists() for path in paths)


def test_who_waits_hears_of_another_holder(paths):
    (path, _), told = paths, []
    with slots([path], "one", silent):

        def third():
            with slots([path], "three", told.append):
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
        with slots(paths[:1], "other", lambda notes: waits.set()):
            order.append("other")

    thread = threading.Thread(target=other)
    with slots(paths[:1], "self", silent):
        thread.start()
        assert waits.wait(20)
    with slots(paths[:1], "self", silent):
        order.append("self")
    thread.join(20)
    assert order == ["other", "self"]


def test_who_needs_several_gets_them_although_others_want_one(paths):
    order, waits = [], threading.Event()

    def one():
        with slots(paths, "one", silent):
            order.append("one")

    def two():
        with slots(paths, "two", lambda notes: waits.set(), count=2) as taken:
            order.append(taken.paths)

    threads = [threading.Thread(target=two), threading.Thread(target=one)]
    with slots(paths[:1], "self", silent):
        threads[0].start()
        assert waits.wait(20)
        wait_until(paths[1].exists)
        threads[1].start()
        time.sleep(0.2)
        assert order == []
    for thread in threads:
        thread.join(20)
    assert order == [(paths[1], paths[0]), "one"]


def test_what_goes_first_in_a_process_gets_the_slot_that_another_waited_for(paths):
    order, first = [], ["low"]

    def want(name):
        with slots(paths[:1], name, silent, goes_first=lambda: first == [name]):
            order.append(name)

    threads = {name: threading.Thread(target=want, args=(name,)) for name in ("low", "high")}
    with slots(paths[:1], "self", silent):
        threads["low"].start()
        wait_until(paths[0].with_name("queue").exists)
        first[:] = ["high"]
        threads["high"].start()
        time.sleep(0.2)
    threads["high"].join(20)
    first[:] = ["low"]
    threads["low"].join(20)
    assert order == ["high", "low"]


def test_a_shared_lease_is_held_by_one_and_its_file_stays_for_other_users(tmp_path):
    path = tmp_path / "devices" / "cuda_0"
    for _ in range(2):
        with slots([path], "mine", silent, shared=True):
            assert path.read_text() == "mine"
            with pytest.raises(KeyboardInterrupt), slots([path], "yours", stop, shared=True):
                pytest.fail("it was held by two")
        assert path.read_text() == ""
        assert path.stat().st_mode & 0o777 == 0o666
        assert path.parent.stat().st_mode & 0o7777 == 0o1777


@pytest.mark.kill
@pytest.mark.parametrize("held", [lease, lambda path: slots([path], "it", silent)])
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
    with slots(paths[:1], "one", silent):
        with pytest.raises(KeyboardInterrupt), slots(paths[:1], "two", stop):
            pytest.fail("it was held by two")
        assert [path.name for path in paths[0].parent.iterdir()] == ["slot_0"]
