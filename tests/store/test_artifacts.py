"""The store: atomic, leased, verified, mirrored."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager

import pytest

from fomo_dagster.errors import StoreError
from fomo_dagster.progress import Callbacks, heeding
from fomo_dagster.store import verified
from fomo_dagster.store.artifacts import Store, record_path
from fomo_dagster.store.claims import Claim
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.store.remotes import Remote

RECIPE = Recipe("thing", 1, {"number": 1})


def make_thing(folder):
    (folder / "below").mkdir()
    (folder / "data.bin").write_bytes(b"0123456789" * 1000)
    (folder / "below" / "text").write_text("words")


def test_what_was_made_is_found_and_not_made_again(tmp_path):
    store = Store(tmp_path)
    assert store.find(RECIPE) is None
    made = store.get_or_make(RECIPE, make_thing)
    found = store.get_or_make(RECIPE, lambda folder: pytest.fail("made twice"))
    assert made.computed
    assert not found.computed
    assert found.path("below/text").read_text() == "words"
    assert found.folder == tmp_path / "thing" / RECIPE.digest
    assert found.cost["seconds"] >= 0
    with pytest.raises(StoreError, match="no file 'other'"):
        found.path("other")


def test_a_failed_making_leaves_nothing(tmp_path):
    store = Store(tmp_path)

    def fail(folder):
        make_thing(folder)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        store.get_or_make(RECIPE, fail)
    assert store.find(RECIPE) is None
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert store.get_or_make(RECIPE, make_thing).computed


def test_making_nothing_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="wrote no file"):
        Store(tmp_path).get_or_make(RECIPE, lambda folder: None)


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    def fill(folder):
        (folder / "data.bin").write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match=r"no space left.*FOMO_HOME"):
        Store(tmp_path).get_or_make(RECIPE, fill)
    assert Store(tmp_path).find(RECIPE) is None


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.EIO])
def test_what_cannot_be_read_is_no_damage_and_stays(tmp_path, monkeypatch, number):
    store = Store(tmp_path)
    made = store.get_or_make(RECIPE, make_thing)
    os.utime(made.path("data.bin"))  # so that its bytes are looked at

    def refuse(path):
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(verified, "digest_of_file", refuse)
        for look in (store.find, store.holds, lambda r: store.get_or_make(r, make_thing)):
            with pytest.raises(StoreError, match=r"cannot be read .* left as it is"):
                look(RECIPE)
    assert not store.get_or_make(RECIPE, make_thing).computed


def test_others_may_read_what_a_library_wrote_for_its_owner_alone(tmp_path):
    def make_as_safetensors_does(folder):
        make_thing(folder)
        (folder / "data.bin").chmod(0o600)

    before = os.umask(0o027)
    try:
        made = Store(tmp_path).get_or_make(RECIPE, make_as_safetensors_does)
    finally:
        os.umask(before)
    assert {made.path(name).stat().st_mode & 0o777 for name in made.manifest["files"]} == {0o640}


@pytest.mark.parametrize(
    "damage", ["truncate", "alter", "alter_keeping_times", "delete", "manifest"]
)
def test_a_damaged_artifact_is_said_set_aside_and_made_again(tmp_path, caplog, damage):
    store = Store(tmp_path)
    path = store.get_or_make(RECIPE, make_thing).path("data.bin")
    before = path.stat()
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "delete":
        path.unlink()
    elif damage == "manifest":
        (path.parent / "manifest.json").write_text("{")
    else:
        with path.open("r+b") as file:
            file.write(b"X")
        if damage == "alter_keeping_times":
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.find(RECIPE) is None
    assert RECIPE.digest in caplog.text
    assert "damaged" in caplog.text
    again = store.get_or_make(RECIPE, make_thing)
    assert again.computed
    assert again.path("data.bin").read_bytes() == b"0123456789" * 1000
    assert len(list((tmp_path / ".damaged").iterdir())) == 1


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "manifest.json", "x\\y", "a\0"])
def test_a_manifest_here_that_names_what_lies_elsewhere_is_damaged(tmp_path, caplog, name):
    store = Store(tmp_path / "store")
    folder = store.get_or_make(RECIPE, make_thing).folder
    evil = tmp_path / "store" / "evil"
    evil.write_text("words")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"]["below/text"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert store.find(RECIPE) is None
    assert "is damaged: its manifest names a file" in caplog.text
    assert store.get_or_make(RECIPE, make_thing).computed


def test_what_was_made_of_another_recipe_is_no_hit(tmp_path, caplog):
    store, other = Store(tmp_path), Recipe("thing", 1, {"number": 2})
    made = store.get_or_make(RECIPE, make_thing)
    shutil.copytree(made.folder, tmp_path / "thing" / other.digest)
    assert store.find(other) is None
    assert f"is damaged: its manifest is that of 'thing' {RECIPE.digest}" in caplog.text
    assert store.find(RECIPE) is not None


def test_what_older_versions_made_is_a_hit_with_its_cost_and_plots(tmp_path):
    store = Store(tmp_path)
    folder = store.get_or_make(RECIPE, make_thing).folder
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["record"]
    manifest |= {"cost": {"seconds": 2.5}, "created_at": "2026-01-02T03:04:05+00:00"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree(folder / "record")
    found = store.get_or_make(RECIPE, lambda folder: pytest.fail("made again"))
    assert (found.cost, found.created_at) == (manifest["cost"], manifest["created_at"])
    assert found.record("below/text") == found.path("below/text")


def test_making_the_same_twice_leaves_the_same_bytes_but_in_the_record(tmp_path):
    def make(folder):
        make_thing(folder)
        record_path(folder, "plot.png").write_bytes(os.urandom(8))

    folders = [Store(tmp_path / n).get_or_make(RECIPE, make).folder for n in "ab"]
    for name in ("manifest.json", "data.bin", "below/text"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    for name in ("record/cost.json", "record/plot.png"):
        assert (folders[0] / name).read_bytes() != (folders[1] / name).read_bytes()


def test_a_touched_file_is_verified_again_and_stays_a_hit(tmp_path):
    store = Store(tmp_path)
    path = store.get_or_make(RECIPE, make_thing).path("data.bin")
    path.touch()
    assert store.find(RECIPE) is not None


def test_who_waited_for_its_turn_to_make_looks_once_more(tmp_path):
    """As for a slot, while another machine made the same and pushed it."""
    url = f"file://{tmp_path / 'remote'}"
    here, there = (Store(tmp_path / name, Remote(url)) for name in ("here", "there"))

    @contextmanager
    def claim():
        there.get_or_make(RECIPE, make_thing)
        yield True

    found = here.get_or_make(RECIPE, lambda folder: pytest.fail("made twice"), claim=claim)
    assert found.path("below/text").read_text() == "words"


def _count_makings(root, log, start):
    start.wait()

    def make(folder):
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.2)
        make_thing(folder)

    Store(root).get_or_make(RECIPE, make)


def test_processes_that_want_the_same_artifact_make_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    start = context.Event()
    arguments = (tmp_path / "store", tmp_path / "log", start)
    processes = [context.Process(target=_count_makings, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert len((tmp_path / "log").read_text().splitlines()) == 1


@pytest.mark.kill
def test_a_killed_maker_holds_no_lease_and_leaves_nothing_visible(tmp_path):
    program = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from fomo_dagster.store.artifacts import Store, record_path
        from fomo_dagster.store.recipes import Recipe

        def make(folder):
            (folder / "data.bin").write_bytes(b"half")
            Path({str(tmp_path / "begun")!r}).touch()
            time.sleep(60)

        store = Store(Path({str(tmp_path / "store")!r}))
        store.get_or_make(Recipe("thing", 1, {{"number": 1}}), make)
        """
    )
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        while not (tmp_path / "begun").exists():
            time.sleep(0.02)
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    store = Store(tmp_path / "store")
    assert store.find(RECIPE) is None
    assert store.get_or_make(RECIPE, make_thing).path("data.bin").stat().st_size == 10_000


@pytest.fixture
def remote_url(tmp_path):
    return f"file://{tmp_path / 'remote'}"


def test_a_remote_brings_what_another_machine_made(tmp_path, remote_url):
    here = Store(tmp_path / "here", Remote(remote_url))
    there = Store(tmp_path / "there", Remote(remote_url))
    assert here.get_or_make(RECIPE, make_thing).computed
    fetched = there.get_or_make(RECIPE, lambda folder: pytest.fail("made twice"))
    assert not fetched.computed
    assert fetched.path("below/text").read_text() == "words"
    assert fetched.folder.is_relative_to(tmp_path / "there")


def test_asking_whether_a_remote_holds_an_artifact_fetches_nothing(tmp_path, remote_url):
    Store(tmp_path / "here", Remote(remote_url)).get_or_make(RECIPE, make_thing)
    there = Store(tmp_path / "there", Remote(remote_url))
    assert there.holds(RECIPE)
    assert there.find_here(RECIPE) is None
    assert not (tmp_path / "there" / "thing").exists()
    assert not there.holds(Recipe("thing", 1, {"number": 2}))


def test_a_damaged_remote_artifact_is_said_and_made_again(tmp_path, remote_url, caplog):
    Store(tmp_path / "here", Remote(remote_url)).get_or_make(RECIPE, make_thing)
    (data,) = (tmp_path / "remote").rglob("data.bin")
    data.write_bytes(b"bad")
    there = Store(tmp_path / "there", Remote(remote_url))
    assert there.get_or_make(RECIPE, make_thing).computed
    assert "damaged" in caplog.text


def test_what_is_retired_is_made_again_and_replaced_on_the_remote(tmp_path, remote_url):
    here = Store(tmp_path / "here", Remote(remote_url))
    here.get_or_make(RECIPE, lambda folder: (folder / "old").write_text("old") and None)
    here.retire(RECIPE.kind, RECIPE.digest)
    assert not here.holds(RECIPE)
    assert here.find(RECIPE) is None  # although the remote still has it
    assert here.get_or_make(RECIPE, make_thing).computed
    there = Store(tmp_path / "there", Remote(remote_url))
    assert there.find(RECIPE).path("data.bin").is_file()
    assert not list((tmp_path / "here" / ".staging").iterdir())
    here.retire("thing", "0" * 32)  # which nobody made


def test_a_failed_push_keeps_the_artifact_and_is_made_up_for(tmp_path, remote_url, monkeypatch):
    store = Store(tmp_path / "here", Remote(remote_url))

    def refuse(*arguments, **options):
        raise StoreError("the network is down")

    with monkeypatch.context() as patched:
        patched.setattr(store.remote, "push", refuse)
        with pytest.raises(StoreError, match="down"):
            store.get_or_make(RECIPE, make_thing)
    assert not store.remote.has(RECIPE.kind, RECIPE.digest)
    assert not store.get_or_make(RECIPE, make_thing).computed
    assert store.remote.has(RECIPE.kind, RECIPE.digest)


def test_an_in_memory_filesystem_can_be_the_remote(tmp_path):
    Store(tmp_path / "a", Remote("memory://mirror")).get_or_make(RECIPE, make_thing)
    assert Store(tmp_path / "b", Remote("memory://mirror")).find(RECIPE) is not None


def test_who_was_robbed_stops_at_the_next_progress_of_its_work(tmp_path, monkeypatch):
    monkeypatch.setenv("FOMO_LOCKS", "heartbeat")
    monkeypatch.setenv("FOMO_LEASE_SECONDS", "1")
    store, progress, told = Store(tmp_path), heeding(Callbacks()).progress, []

    def write(folder):
        (folder / "data").write_text("the other's")

    def stand_still(folder):
        with monkeypatch.context() as dead:
            dead.setattr(Claim, "_is_dead", lambda self, link: True)
            Store(tmp_path).get_or_make(RECIPE, write)
        for step in range(1000):
            told.append(step)
            progress("training", step, 1000)
            time.sleep(0.01)

    assert not store.get_or_make(RECIPE, stand_still).computed
    assert len(told) < 500


@pytest.mark.parametrize("fails", [False, True])
def test_who_was_robbed_drops_what_it_made_and_finds_the_others(
    tmp_path, monkeypatch, caplog, fails
):
    monkeypatch.setenv("FOMO_LOCKS", "heartbeat")
    store = Store(tmp_path)

    def write(text):
        return lambda folder: (folder / "data").write_text(text) and None

    def stand_still(folder):
        with monkeypatch.context() as dead:
            dead.setattr(Claim, "_is_dead", lambda self, link: True)
            other = Store(tmp_path).get_or_make(RECIPE, write("the other's"))
        assert other.computed
        assert not folder.exists()
        if not fails:
            folder.mkdir()
        write("late")(folder)

    found = store.get_or_make(RECIPE, stand_still)
    assert (found.computed, found.path("data").read_text()) == (False, "the other's")
    assert "stood still for so long that another makes it" in caplog.text
    assert not list((tmp_path / ".staging").iterdir())
    assert not list((tmp_path / ".leases").iterdir())
