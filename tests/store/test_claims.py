"""Claims: one holder at a time, whoever died, stood still or was slow."""

import os
import random
import signal
import threading
import time

import pytest

from fomo_dagster.errors import InputError
from fomo_dagster.store import claims, owners
from fomo_dagster.store.claims import Claim, Folder


class Memory:
    """A place whose files are a mapping; other threads come between any two of its steps."""

    def __init__(self):
        self.files, self.lock = {}, threading.RLock()

    def create(self, name, data):
        self._others()
        with self.lock:
            return self.files.setdefault(name, data) is data

    def write(self, name, data):
        with self.lock:
            self.files[name] = data

    def read(self, name):
        self._others()
        return self.files.get(name)

    def remove(self, name):
        self._others()
        with self.lock:
            self.files.pop(name, None)

    def _others(self):
        if random.random() < 0.3:
            time.sleep(0)


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(claims, "time", clock)
    return clock


@pytest.fixture
def elsewhere(monkeypatch):
    """Within it, a claim is taken by a process of another host."""

    def take(place, note="far"):
        with monkeypatch.context() as there:
            there.setattr(owners, "_kernel", lambda: "another")
            return Claim(place, "x").take(note)

    return take


def test_of_many_that_take_and_rob_at_any_moment_one_holds(monkeypatch):
    """Robbing at sight, as no one does: so it happens between any two steps of another."""
    monkeypatch.setattr(Claim, "_is_dead", lambda self, link: not link.free and hurried())
    place, working, kept = Memory(), [], []

    def hurried():
        return random.random() < 0.3

    def come_and_go():
        for _ in range(40):
            held = Claim(place, "x").take("it")
            if held is None:
                continue
            for _ in range(3):
                with place.lock:  # nothing changes meanwhile
                    working[:] = [other for other in working if not other.is_robbed()] + [held]
                    if held.is_robbed():
                        break
                    assert set(working) == {held}
            else:
                kept.append(held)
            held.release()

    failed = []
    threads = [threading.Thread(target=come_and_go) for _ in range(6)]
    monkeypatch.setattr(threading, "excepthook", failed.append)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(kept) > 10
    assert Claim(place, "x").take("after all") is not None


def test_a_holder_elsewhere_is_robbed_only_once_it_stood_still(clock, elsewhere):
    place, waiting = Memory(), Claim(Memory(), "x")
    held = elsewhere(place)
    waiting = Claim(place, "x")
    for second in range(0, 300, 5):  # it beats, slowly
        clock.now = float(second)
        if second % 50 == 0:
            place.write(f"x.beat-{held._own.token}", str(second).encode())
        assert waiting.take("near") is None
    beaten = 250.0
    for second in range(300, 400, 5):
        clock.now = float(second)
        if (mine := waiting.take("near")) is not None:
            break
    assert beaten + 60 <= clock.now <= beaten + 65
    assert (held.is_robbed(), mine.is_robbed()) == (True, False)
    held.release()
    assert not mine.is_robbed()
    mine.release()
    assert not place.files


def test_time_in_which_nobody_looked_does_not_count(clock, elsewhere):
    place = Memory()
    held, waiting = elsewhere(place), Claim(place, "x")
    assert waiting.take("near") is None
    clock.now = 1000.0  # as of a laptop that slept
    assert waiting.take("near") is None
    assert not held.is_robbed()


def test_a_dead_process_of_this_host_is_followed_at_once(tmp_path):
    place = Folder(tmp_path)
    child = os.fork()
    if child == 0:
        os._exit(0 if Claim(place, "x").take("child") else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert Claim(place, "x").note() == "child"
    held = Claim(place, "x").take("parent")
    assert held is not None
    held.release()
    assert not list(tmp_path.iterdir())


def test_a_process_of_this_host_is_never_robbed_while_it_lives(clock):
    place = Memory()
    held, waiting = Claim(place, "x").take("one"), Claim(place, "x")
    for _ in range(100):
        clock.now += 10
        assert waiting.take("other") is None
    assert not held.is_robbed()


def test_a_later_process_of_the_same_number_is_another(monkeypatch):
    before = owners.Owner("here", owners._kernel(), os.getpid(), "7")
    assert before.is_gone() is True
    assert owners.this_process().is_gone() is False
    assert owners.Owner("there", "another", os.getpid(), "7").is_gone() is None


def test_what_nobody_finished_writing_is_followed_in_time(clock, tmp_path):
    (tmp_path / "x").write_bytes(b'{"token": "a')
    waiting = Claim(Folder(tmp_path), "x")
    while (held := waiting.take("it")) is None:
        clock.now += 5
        assert clock.now < 70
    assert clock.now >= 60
    held.release()
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_removed_who_waits_follows_in_time(clock, monkeypatch):
    place = Memory()
    monkeypatch.setattr(place, "remove", lambda name: None)
    waiting = Claim(place, "x")
    waiting.take("first").release()
    assert waiting.note() == ""
    while (held := waiting.take("second")) is None:
        clock.now += 5
        assert clock.now < 70
    assert (waiting.note(), held.is_robbed()) == ("second", False)


@pytest.mark.kill
def test_who_was_stopped_finds_itself_robbed_and_leaves_it_to_the_other(tmp_path, monkeypatch):
    monkeypatch.setenv("FOMO_LEASE_SECONDS", "1")
    place, ready, said = Folder(tmp_path / "leases"), tmp_path / "ready", tmp_path / "said"
    child = os.fork()
    if child == 0:
        owners._kernel = lambda: "another"
        held = Claim(place, "x").take("child")
        ready.touch()
        while not held.robbed:
            time.sleep(0.02)
        held.release()
        said.write_text(str(held.is_robbed()))
        os._exit(0)
    while not ready.exists():
        time.sleep(0.01)
    waiting, until = Claim(place, "x"), time.monotonic() + 1.5
    while time.monotonic() < until:  # while it beats
        assert waiting.take("parent") is None
        time.sleep(0.05)
    os.kill(child, signal.SIGSTOP)
    while (mine := waiting.take("parent")) is None:
        time.sleep(0.05)
    os.kill(child, signal.SIGCONT)
    os.waitpid(child, 0)
    assert said.read_text() == "True"
    assert not mine.is_robbed()
    assert Claim(place, "x").note() == "parent"
    mine.release()
    assert not list((tmp_path / "leases").iterdir())


@pytest.mark.parametrize("seconds", ["no", "0", "-5", "nan"])
def test_an_impossible_patience_is_refused(seconds, monkeypatch):
    monkeypatch.setenv("FOMO_LEASE_SECONDS", seconds)
    with pytest.raises(InputError, match=r"FOMO_LEASE_SECONDS is .* expected seconds, from 1"):
        claims.patience()
