"""Leases and slots: held by one at a time, in turn, and by nobody whose process is gone."""

import errno
import fcntl
import os
import signal
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from fomo_dagster.errors import InputError
from fomo_dagster.store import kernel_locks
from fomo_dagster.store.leases import lease, slots


def wait_until(true):
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def paths(tmp_path):
    return [tmp_path / f"slot_{number}" for number in range(2)]


@pytest.fixture(params=["kernel", "heartbeat"], autouse=True)
def way(request, monkeypatch):
    monkeypatch.setenv("FOMO_LOCKS", request.param)
    return request.param


of_the_kernel = pytest.mark.parametrize("way", ["kernel"], indirect=True)


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


@of_the_kernel
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


@of_the_kernel
def test_a_holder_that_has_not_yet_said_who_it_is_is_asked_again(tmp_path):
    path, told = tmp_path / "lease", []
    with lease(path) as first:
        path.write_text("")  # as in the moment between its lock and its note

        def other():
            with lease(path, told.append) as waited:
                told.append(waited.waited)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.2)
        path.write_text("77")
        wait_until(lambda: told)
    thread.join(20)
    assert (first.waited, told) == (False, ["77", True])


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
        turn = SimpleNamespace(is_next=lambda: first == [name], wait=lambda: time.sleep(0.01))
        with slots(paths[:1], name, silent, turn=turn):
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


@of_the_kernel
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


@of_the_kernel
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_the_file_system_takes_no_locks_leases_are_held_by_one_too(
    tmp_path, monkeypatch, number
):
    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.delenv("FOMO_LOCKS")
    path = tmp_path / "leases" / "one"
    for _ in range(2):
        with lease(path), pytest.raises(KeyboardInterrupt), lease(path, stop):
            pytest.fail("it was held by two")
        assert not list(path.parent.iterdir())


def test_who_waits_for_a_process_of_another_host_is_told_of_both(tmp_path, monkeypatch):
    told = []
    with monkeypatch.context() as there:
        there.setattr(socket, "gethostname", lambda: "node07")
        holding = lease(tmp_path / "lease")
        holding.__enter__()
    with (
        pytest.raises(KeyboardInterrupt),
        lease(tmp_path / "lease", lambda n: (told.append(n), stop(n))),
    ):
        pass
    holding.__exit__(None, None, None)
    assert told == [f"{os.getpid()} on node07"]


@pytest.mark.parametrize(
    ("mount", "holds"),
    [
        ("ext4 /dev/sda1 rw", True),
        ("nfs4 host:/home rw,vers=4.2,local_lock=none", True),
        ("nfs host:/home rw,vers=3,nolock,local_lock=all", False),
        ("lustre host:/lus rw,flock,lazystatfs", True),
        ("lustre host:/lus rw,localflock", False),
        ("fuse.gcsfuse bucket rw", False),
        ("fuseblk /dev/sdb1 rw", True),
        ("9p shared rw", False),
    ],
)
def test_the_type_of_the_file_system_says_whether_locks_hold(mount, holds, tmp_path, monkeypatch):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw shared:1 - fuse root rw\n"
        f"36 22 0:40 / {tmp_path}/a\\040b rw shared:2 - {mount}\n"
        f"37 22 0:41 / {tmp_path}/a\\040bc rw - fuse x rw\n"
    )
    monkeypatch.setattr(kernel_locks, "_MOUNTS", mounts)
    monkeypatch.delenv("FOMO_LOCKS")
    assert kernel_locks.hold_at(tmp_path / "a b" / "leases") is holds


def test_an_unknown_way_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("FOMO_LOCKS", "flock")
    with pytest.raises(InputError, match="FOMO_LOCKS is 'flock': expected kernel or heartbeat"):
        lease(tmp_path / "lease").__enter__()
