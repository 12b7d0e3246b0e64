"""A training that another machine goes on with, from the copy of a resume point on the remote."""

import logging

import pytest

from fomo_dagster.store.connections import Connection
from fomo_dagster.store.remotes import Remote
from fomo_dagster.training.resume import ResumePoint


def state(position):
    return {"position": position, "learner": {"weight": position / 7}}


@pytest.fixture
def machine(tmp_path):
    """`machine(name)`: the resume point of a training on a machine that shares the remote."""

    def point(name, digest="recipe"):
        copies = Remote(f"file://{tmp_path / 'remote'}").resume_copies(digest)
        return ResumePoint(tmp_path / name, digest, copies)

    return point


def files(tmp_path):
    return sorted(path.name for path in (tmp_path / "remote").rglob("*") if path.is_file())


def test_another_machine_takes_the_newest_point_byte_for_byte(machine, tmp_path):
    one = machine("one")
    for position in (3, 5):
        one.save_last(state(position))
    two = machine("two")
    two.pull()
    assert two.load() == state(5)
    assert two.path.read_bytes() == one.path.read_bytes()
    assert [name.partition("-")[0] for name in files(tmp_path)] == ["5", "newest.json"]
    assert {path.name for path in two.path.parent.iterdir()} == {"resume.pt"}


@pytest.mark.parametrize(("here", "expected"), [(7, 7), (2, 5), (5, 5)])
def test_the_point_that_is_further_is_used(machine, here, expected):
    machine("one").save_last(state(5))
    ResumePoint(machine("two").path.parent, "recipe").save_last(state(here))
    two = machine("two")
    two.pull()
    assert two.load() == state(expected)


def test_no_step_waits_for_a_copy(machine, monkeypatch):
    begun, upload = [], Connection.upload

    def slow(self, source, path):
        begun.append(source)
        monkeypatch.setattr(Connection, "upload", upload)
        while not go_on:
            pass
        upload(self, source, path)

    go_on: list[bool] = []
    monkeypatch.setattr(Connection, "upload", slow)
    one = machine("one")
    for position in (1, 2, 3):  # while the first is copied
        one.save(state(position))
    go_on.append(True)
    one.settle()
    two = machine("two")
    two.pull()
    assert two.load() == state(1)  # as it was when its copy began
    one.save_last(state(4))
    two.pull()
    assert two.load() == state(4)


@pytest.mark.parametrize("damage", ["bytes", "names", "json"])
def test_a_damaged_copy_costs_a_warning_and_not_the_training(machine, tmp_path, caplog, damage):
    machine("one").save_last(state(5))
    (newest,) = (tmp_path / "remote").rglob("newest.json")
    (copy,) = (tmp_path / "remote").rglob("5-*.pt")
    if damage == "bytes":
        data = bytearray(copy.read_bytes())
        data[len(data) // 2] ^= 1
        copy.write_bytes(data)
    else:
        said = newest.read_text().replace(copy.name, "../x")
        newest.write_text(said if damage == "names" else "{")
    two = machine("two")
    ResumePoint(two.path.parent, "recipe").save_last(state(2))
    with caplog.at_level(logging.WARNING):
        two.pull()
    assert two.load() == state(2)
    assert ("cannot be used" in caplog.text) is (damage == "bytes")


def test_a_remote_that_refuses_costs_a_warning_and_not_the_training(machine, tmp_path, caplog):
    (tmp_path / "remote").write_text("a file is in the way")
    one = machine("one")
    one.pull()
    one.save_last(state(5))
    assert one.load() == state(5)
    assert "was not copied to" in caplog.text


def test_no_copies_are_left_once_they_are_removed(machine, tmp_path):
    one, other = machine("one"), machine("one", "other")
    one.save_last(state(5))
    other.save_last(state(6))
    Remote(f"file://{tmp_path / 'remote'}").resume_copies("recipe").remove()
    assert [name.partition("-")[0] for name in files(tmp_path)] == ["6", "newest.json"]
    one.set_aside()
    assert one.load() is None
