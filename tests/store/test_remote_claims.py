"""Claims on a remote: of several machines one makes an artifact, and the others fetch it."""

import os
import signal
import threading
import time
from collections import Counter
from contextlib import contextmanager

import pytest

from fomo_dagster.store import owners, remotes
from fomo_dagster.store.artifacts import Store
from fomo_dagster.store.claims import Claim
from fomo_dagster.store.connections import Connection
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.store.remotes import Remote

RECIPE = Recipe("thing", 1, {"number": 1})


def never(folder):
    pytest.fail("it was made twice")


def write(text):
    return lambda folder: (folder / "data").write_text(text) and None


def text_of(artifact):
    return artifact.path("data").read_text()


@pytest.fixture(params=["s3", "file"])
def url(request, tmp_path):
    if request.param == "file":
        return f"file://{tmp_path / 'shared'}"
    return f"s3://{request.getfixturevalue('bucket')}/store"


@pytest.fixture
def machine(tmp_path, url, monkeypatch):
    """`machine(name)`: the store of a machine that shares the remote."""
    monkeypatch.setattr(remotes, "_SECONDS_BETWEEN_LOOKS", 0.05)
    return lambda name: Store(tmp_path / name, Remote(url))


def counted(name, ask, asked):
    def count(self, *arguments):
        asked[name] += 1
        return ask(self, *arguments)

    return count


@pytest.fixture
def asked(monkeypatch):
    """How often each kind of request was made."""
    asked = Counter()
    for name in ("read", "write", "create", "remove", "sizes", "upload"):
        monkeypatch.setattr(Connection, name, counted(name, getattr(Connection, name), asked))
    return asked


def there(url):
    return Remote(url)._connection


def left(url):
    """What is left of claims on a remote."""
    connection = there(url)
    connection._filesystem.invalidate_cache()
    names = [path.rpartition("/")[2] for path in connection._filesystem.find(connection.path(""))]
    return [name for name in names if name.startswith("thing-")]


@pytest.mark.slow
def test_who_wants_what_another_machine_makes_waits_and_fetches_it(machine, url, monkeypatch):
    begun, told, order = threading.Event(), threading.Event(), []

    def make(folder):
        begun.set()
        assert told.wait(20)
        order.append("made")
        write("one's")(folder)

    def first():
        with monkeypatch.context() as there:
            there.setattr(owners, "_kernel", lambda: "another")
            machine("one").get_or_make(RECIPE, make, takes_long=True)

    def waiting(holder):
        order.append(holder.isdigit())
        told.set()

    @contextmanager
    def device():
        order.append("device")
        yield False

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(20)
    found = machine("two").get_or_make(RECIPE, never, waiting, device, takes_long=True)
    thread.join()
    assert order == [True, "made"]  # and no device was held meanwhile
    assert (found.computed, text_of(found)) == (False, "one's")
    assert not left(url)


def test_a_machine_that_failed_lets_the_next_make_it(machine, url):
    def fail(folder):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        machine("one").get_or_make(RECIPE, fail, takes_long=True)
    assert machine("two").get_or_make(RECIPE, write("two's"), takes_long=True).computed
    assert not left(url)


def test_what_was_made_is_there_before_the_claim_is_given_back(machine, url, monkeypatch):
    given_back, remove = [], Connection.remove

    def removed(self, path):
        given_back.append(machine("three").holds(RECIPE))
        remove(self, path)

    monkeypatch.setattr(Connection, "remove", removed)
    machine("one").get_or_make(RECIPE, write("one's"), takes_long=True)
    assert given_back
    assert all(given_back)


def test_a_machine_that_stood_still_takes_what_its_follower_made(machine, url, monkeypatch):
    def stand_still(folder):
        with monkeypatch.context() as dead:
            dead.setattr(Claim, "_is_dead", lambda self, link: True)
            made = machine("two").get_or_make(RECIPE, write("two's"), takes_long=True)
        assert made.computed
        write("late")(folder)

    found = machine("one").get_or_make(RECIPE, stand_still, takes_long=True)
    assert (found.computed, text_of(found)) == (False, "two's")
    assert text_of(machine("three").get_or_make(RECIPE, never)) == "two's"
    assert not left(url)


def test_what_takes_no_time_is_not_claimed_and_a_claim_costs_eight_requests(machine, asked):
    costs = []
    for number, takes_long in enumerate([True, False, True]):
        asked.clear()
        recipe = Recipe("thing", 1, {"number": number})
        machine("one").get_or_make(recipe, write("x"), takes_long=takes_long)
        costs.append(Counter(asked))
    assert costs[2] - costs[1] == {"read": 4, "create": 2, "remove": 2}


@pytest.mark.parametrize("url", ["s3"], indirect=True)
def test_where_a_store_ignores_conditions_each_machine_makes_its_own(machine, url, monkeypatch):
    """As servers that know nothing of `If-None-Match`."""
    filesystem = there(url)._filesystem
    pipe_file = filesystem.pipe_file
    monkeypatch.setattr(filesystem, "pipe_file", lambda path, data, mode="": pipe_file(path, data))
    assert not machine("one").remote.has_claims

    def make(folder):
        machine("two").get_or_make(RECIPE, write("two's"), takes_long=True)
        write("one's")(folder)

    assert machine("one").get_or_make(RECIPE, make, takes_long=True).computed
    assert text_of(machine("three").get_or_make(RECIPE, never)) == "two's"


@pytest.mark.slow
def test_claims_of_several_are_taken_in_one_order(machine, url):
    """So that two machines never wait for each other."""
    recipes = [Recipe("thing", 1, {"number": number}) for number in range(4)]
    together, most, held = threading.Lock(), [], []

    def work(name, recipes):
        for _ in range(3):
            with machine(name).remote.claimed([(r.kind, r.digest) for r in recipes]):
                with together:
                    held.append(name)
                    most.append(len(held))
                time.sleep(0.005)
                held.remove(name)

    threads = [
        threading.Thread(target=work, args=("a", recipes)),
        threading.Thread(target=work, args=("b", recipes[::-1])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert max(most) == 1
    assert not left(url)


@pytest.mark.kill
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_what_a_machine_lost_is_made_once_by_another(tmp_path, monkeypatch, number):
    """A machine that was only stopped goes on later, and publishes nothing over the other's."""
    monkeypatch.setenv("FOMO_LEASE_SECONDS", "1")
    monkeypatch.setattr(remotes, "_SECONDS_BETWEEN_LOOKS", 0.05)
    begun, said = tmp_path / "begun", tmp_path / "said"

    def store(name):
        return Store(tmp_path / name, Remote(f"file://{tmp_path / 'shared'}"))

    def slow(folder):
        begun.touch()
        time.sleep(0.3)
        write("one's")(folder)

    child = os.fork()
    if child == 0:
        owners._kernel = lambda: "another"
        found = store("one").get_or_make(RECIPE, slow, takes_long=True)
        said.write_text(f"{found.computed} {text_of(found)}")
        os._exit(0)
    while not begun.exists():
        time.sleep(0.01)
    os.kill(child, number)
    told = []
    found = store("two").get_or_make(RECIPE, write("two's"), told.append, takes_long=True)
    assert (found.computed, told) == (True, [str(child)])
    if number == signal.SIGSTOP:
        os.kill(child, signal.SIGCONT)
        os.waitpid(child, 0)
        assert said.read_text() == "False two's"
    else:
        os.waitpid(child, 0)
        assert text_of(store("one").get_or_make(RECIPE, never)) == "two's"
    assert text_of(store("three").get_or_make(RECIPE, never)) == "two's"
    assert not left(f"file://{tmp_path / 'shared'}")
