"""Cleaning takes what nobody needs, whole, beside whatever runs; and what is needed stays."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from fomo_dagster.errors import StoreError
from fomo_dagster.home import Home
from fomo_dagster.store import cleaning
from fomo_dagster.store.artifacts import Store
from fomo_dagster.store.cleaning import clean, what_goes
from fomo_dagster.store.heads import Head
from fomo_dagster.store.leases import lease
from fomo_dagster.store.pins import pins_of
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.store.sizes import bytes_below
from fomo_dagster.store.usage import usage
from tests.store.killing import killed_before

FORK = multiprocessing.get_context("fork")
DATA = b"0123456789" * 100


def recipe(number, kind="trained", **inputs):
    return Recipe(kind, 1, {"number": number}, inputs)


def make(folder):
    (folder / "below").mkdir()
    (folder / "data.bin").write_bytes(DATA)
    (folder / "below" / "more.bin").write_bytes(DATA)


def write_head(home, asset, made, experiment="toy", *, makes_weights=True):
    home.heads.write(
        Head(
            asset=asset, kind=made.kind, experiment=experiment, stage=1, digest=made.digest,
            data_version=made.digest, code_version="", recipes={}, facts={}, status="computed",
            artifacts={"only": (made.kind, made.digest)}, recorded_at="", seconds=None,
            makes_weights=makes_weights,
        )
    )  # fmt: skip


def has(home, made):
    """Whether an artifact is there and whole; it never may be there and not whole."""
    folder = home.root / "store" / made.kind / made.digest
    if not folder.exists():
        return False
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} >= {
        "manifest.json", "data.bin", "below/more.bin",
    }  # fmt: skip
    return True


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def filled(home, count):
    recipes = [recipe(number) for number in range(count)]
    for one in recipes:
        home.store.get_or_make(one, make)
    pins_of(home.root / "store").close()  # as at the end of the process that made them
    return recipes


class Other:
    """Another process, which holds what it was told until it is let go."""

    def __init__(self, work):
        self._go, self._end = FORK.Event(), FORK.Event()
        self.process = FORK.Process(target=self._run, args=(work,))
        self.process.start()
        assert self._go.wait(20)

    def _run(self, work):
        work()
        self._go.set()
        self._end.wait(20)

    def let_go(self):
        self._end.set()
        self.process.join(20)


def test_what_an_asset_a_release_or_a_resume_point_needs_stays(home):
    headed, released, start, gone = filled(home, 4)
    write_head(home, "toy/trained_001", headed)
    (home.root / "releases" / "live").mkdir(parents=True)
    (home.root / "releases/live/0001.json").write_text(json.dumps({"digest": released.digest}))
    point = home.resume_points / ("a" * 32)
    point.mkdir(parents=True)
    (point / "resume.pt").write_bytes(DATA)
    (point / "recipe.json").write_text(json.dumps(recipe(9, start=start.digest).as_data()))
    size = bytes_below(home.store.folder(gone.kind, gone.digest))
    assert what_goes(home.root, home.store).artifacts == {(gone.kind, gone.digest): size}
    assert has(home, gone)  # so far it was only said
    found = clean(home.root, home.store)
    assert (found.bytes, list(found.artifacts)) == (size, [(gone.kind, gone.digest)])
    assert [has(home, one) for one in (headed, released, start, gone)] == [True] * 3 + [False]
    assert (point / "resume.pt").exists()
    assert clean(home.root, home.store).bytes == 0
    assert not list((home.root / "store/.trash").iterdir())


def test_what_a_running_process_was_told_is_there_stays_until_it_ends(home):
    (one,) = filled(home, 1)
    other = Other(lambda: home.store.holds(one))
    found = clean(home.root, home.store)
    assert not found.artifacts
    assert list(found.kept_for.values()) == [1]
    assert has(home, one)
    other.let_go()
    assert list(clean(home.root, home.store).artifacts) == [(one.kind, one.digest)]


def test_a_killed_process_needs_nothing_any_more(home):
    (one,) = filled(home, 1)
    other = Other(lambda: home.store.holds(one))
    os.kill(other.process.pid, signal.SIGKILL)
    other.process.join(20)
    assert len(clean(home.root, home.store).artifacts) == 1


def test_nothing_vanishes_under_a_process_that_found_it(home):
    recipes = filled(home, 60)

    def look():
        for one in recipes:
            found = home.store.find(one)
            if found is not None:
                time.sleep(0.001)
                assert found.path("below/more.bin").read_bytes() == DATA

    reader = FORK.Process(target=look)
    reader.start()
    while reader.is_alive():
        clean(home.root, home.store)
    reader.join()
    assert reader.exitcode == 0


def test_what_was_cleaned_says_when_until_it_is_made_again(home):
    (one,) = filled(home, 1)
    assert home.store.note(one).day is None
    clean(home.root, home.store)
    assert home.store.note(one).day == time.strftime("%Y-%m-%d", time.gmtime())
    assert home.store.get_or_make(one, make).computed
    assert home.store.note(one).day is None


def test_only_what_nobody_works_in_is_swept(home):
    one, two = filled(home, 2)
    write_head(home, "toy/trained_001", one)
    write_head(home, "toy/trained_002", two)
    for made in (one, two):
        left = home.store.places.new_staging(made.kind, made.digest)
        (left / "data.bin").write_bytes(DATA)
    (home.root / "resume" / one.digest).mkdir(parents=True)
    (home.root / "resume" / one.digest / "resume.pt").write_bytes(DATA)
    with lease(home.store.places.lease(one.kind, one.digest)):
        assert clean(home.root, home.store).bytes == 2 * len(DATA)
    (left,) = (home.root / "store/.staging").iterdir()
    assert left.name.startswith(f"{one.kind}-{one.digest}")
    assert not list((home.root / "resume").iterdir())


def test_nothing_is_cleaned_while_a_head_is_damaged(home):
    (one,) = filled(home, 1)
    write_head(home, "toy/trained_001", one)
    path = home.heads.path("toy/trained_001")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match=r"trained_001.json is damaged.*`fomo run`"):
        clean(home.root, home.store)
    assert has(home, one)


def test_two_who_clean_at_once_take_each_artifact_once(home):
    recipes = filled(home, 40)
    write_head(home, "toy/trained_001", recipes[0])
    freed = FORK.Queue()
    both = [FORK.Process(target=lambda: freed.put(len(clean(home.root, home.store).artifacts)))
            for _ in range(2)]  # fmt: skip
    for one in both:
        one.start()
    assert sum(freed.get(timeout=20) for _ in both) == 39
    for one in both:
        one.join()
    assert [has(home, one) for one in recipes] == [True] + [False] * 39


@pytest.mark.kill
def test_a_cleaning_killed_anywhere_leaves_nothing_half_gone(tmp_path):
    made = Home(tmp_path / "made")
    filled(made, 4)
    moments, number = 0, 0
    while True:
        home = Home(tmp_path / f"try_{number}")
        shutil.copytree(made.root, home.root)
        recipes = [recipe(n) for n in range(4)]
        write_head(home, "toy/trained_001", recipes[0])
        process = FORK.Process(target=_clean_until, args=(home, number))
        process.start()
        process.join(20)
        there = [has(home, one) for one in recipes]
        assert there[0]
        for one, is_there in zip(recipes, there, strict=True):
            assert is_there or home.store.note(one).day is not None
        clean(home.root, home.store)
        assert [has(home, one) for one in recipes] == [True, False, False, False]
        assert not list((home.root / "store/.trash").iterdir())
        assert home.store.get_or_make(recipes[1], make).computed
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        moments, number = moments + 1, number + 1
    assert moments > 15  # notes, renames, and what is removed after them


def _clean_until(home, number):
    """Clean, and be killed before the operation of that number."""
    operations = [(Path, "rename"), (Path, "unlink"), (os, "unlink"), (os, "rmdir")]
    killed_before(number, [*operations, (cleaning, "write_note")])
    clean(home.root, home.store)


def link(home, to):
    home.root.mkdir()
    (home.root / "store").symlink_to(to.root / "store")


def test_what_a_home_that_links_to_the_store_needs_stays(home, tmp_path):
    (tmp_path / "home/store").mkdir(parents=True)
    guest = Home(tmp_path / "guest")
    link(guest, home)
    one, two, three = filled(guest, 3)
    write_head(guest, "theirs/trained_001", one)
    write_head(home, "ours/trained_001", two)
    assert list(clean(home.root, home.store).artifacts) == [(three.kind, three.digest)]
    assert not clean(guest.root, guest.store).artifacts
    shutil.rmtree(guest.root / "heads")
    assert list(clean(guest.root, guest.store).artifacts) == [(one.kind, one.digest)]
    guest.root.rename(tmp_path / "moved")
    with pytest.raises(StoreError, match=rf"shared with the home {guest.root} .* cannot be seen"):
        clean(home.root, home.store)


def test_a_shared_store_keeps_what_it_held_before_homes_were_known(home, tmp_path):
    (one,) = filled(home, 1)
    shutil.copytree(home.root / "store", tmp_path / "shared")
    guest = Home(tmp_path / "guest")
    guest.root.mkdir()
    (guest.root / "store").symlink_to(tmp_path / "shared")
    os.utime(tmp_path / "shared" / one.kind / one.digest, (1, 1))
    two = recipe(2)
    guest.store.get_or_make(two, make)
    found = clean(guest.root, guest.store)
    assert list(found.artifacts) == [(two.kind, two.digest)]
    assert has(guest, one)


def test_usage_counts_what_is_needed_by_one_and_by_several(home):
    shared, own, gone = filled(home, 3)
    write_head(home, "a/trained_001", shared, "a")
    write_head(home, "b/trained_001", shared, "b")
    write_head(home, "b/trained_002", own, "b")
    sizes = [bytes_below(home.store.folder(one.kind, one.digest)) for one in (shared, own, gone)]
    found = usage(home.root, home.store)
    assert [(s.name, s.artifacts, s.bytes, s.alone) for s in found.experiments] == [
        ("b", 2, sizes[0] + sizes[1], sizes[1]), ("a", 1, sizes[0], 0),
    ]  # fmt: skip
    (kind,) = found.kinds
    assert (kind.artifacts, kind.bytes, kind.unneeded) == (3, sum(sizes), sizes[2])
    assert found.unneeded.bytes == sizes[2]


def linked_with(home, made, kind="live_start"):
    """An artifact whose data is one file with another's."""
    start = Recipe(kind, 1, {}, {"weights": made.digest})

    def link(folder):
        os.link(home.store.folder(made.kind, made.digest) / "data.bin", folder / "data.bin")

    home.store.get_or_make(start, link)
    pins_of(home.root / "store").close()
    return start


def test_what_two_artifacts_share_by_a_link_is_counted_and_freed_once(home):
    (one,) = filled(home, 1)
    start = linked_with(home, one)
    write_head(home, "toy/trained_001", one, "a")
    sizes = [bytes_below(home.store.folder(each.kind, each.digest)) for each in (one, start)]
    own = sizes[1] - len(DATA)  # its manifest
    found = usage(home.root, home.store)
    assert {kind.kind: (kind.bytes, kind.unneeded) for kind in found.kinds} == {
        "trained": (sizes[0], 0), "live_start": (sizes[1], own),
    }  # fmt: skip
    assert found.bytes == sizes[0] + own + found.leftovers + sum(found.others.values())
    assert found.experiments[0].alone == sizes[0] - len(DATA)
    assert found.unneeded.bytes == what_goes(home.root, home.store).bytes == own
    home.heads.remove("toy/trained_001")
    found = usage(home.root, home.store)
    assert {kind.kind: kind.unneeded for kind in found.kinds} == {
        "trained": sizes[0], "live_start": sizes[1],
    }  # fmt: skip
    assert found.unneeded.bytes == what_goes(home.root, home.store).bytes == sizes[0] + own
    assert clean(home.root, home.store).bytes == sizes[0] + own


def test_a_cleaning_that_leaves_a_link_frees_the_rest_alone(home):
    (one,) = filled(home, 1)
    start = linked_with(home, one)
    write_head(home, "toy/trained_001", one)
    assert clean(home.root, home.store).bytes < len(DATA)
    assert not home.store.folder(start.kind, start.digest).exists()
    assert has(home, one)


def bucket_of(tmp_path):
    return str(tmp_path / "remote")


def machine(tmp_path, name, url):
    return Home(tmp_path / name, url)


def test_a_remote_keeps_what_any_home_uses(tmp_path):
    keeps_what_any_home_uses(tmp_path, bucket_of(tmp_path))


@pytest.mark.slow
def test_a_bucket_keeps_what_any_home_uses(tmp_path, bucket):
    keeps_what_any_home_uses(tmp_path, f"s3://{bucket}/store")


def keeps_what_any_home_uses(tmp_path, url):
    first, second, third = (machine(tmp_path, name, url) for name in ("first", "second", "third"))
    one, two = filled(first, 2)
    address = (one.kind, one.digest)
    write_head(first, "toy/trained_002", two)
    assert second.store.holds(one)  # a plan was told that it is there
    found = clean(first.root, first.store)
    assert list(found.artifacts) == [address]
    assert not found.remote
    assert second.store.find(one) is not None
    assert not has(first, one)
    assert list(what_goes(second.root, second.store).remote) == [address]
    found = clean(second.root, second.store)
    assert list(found.remote) == [address]
    assert found.remote[address] > 2 * len(DATA)
    assert not third.store.holds(one)
    assert third.store.holds(two)
    assert set(third.store.remote.contents()) == {(two.kind, two.digest)}
    assert third.store.get_or_make(one, make).computed
    assert first.store.holds(one)


def test_a_remote_keeps_what_was_pushed_before_homes_said_what_they_use(tmp_path):
    first, second = (machine(tmp_path, name, bucket_of(tmp_path)) for name in ("first", "second"))
    (one,) = filled(first, 1)
    shutil.rmtree(tmp_path / "remote/.users")
    assert second.store.find(one) is not None
    for home in (first, second):
        assert not clean(home.root, home.store).remote
    assert usage(first.root, first.store).remote.unknown == 1
    assert machine(tmp_path, "third", bucket_of(tmp_path)).store.holds(one)


def test_copies_of_resume_points_go_once_their_training_is_finished(tmp_path):
    home = machine(tmp_path, "home", bucket_of(tmp_path))
    (one,) = filled(home, 1)
    write_head(home, "toy/trained_001", one)
    point = tmp_path / "resume.pt"
    point.write_bytes(DATA)
    for digest in (one.digest, "0" * len(one.digest)):
        home.store.remote.resume_copies(digest).push_last(point, 3)
    address = ("resume_point", one.digest)
    assert what_goes(home.root, home.store).remote.keys() == {address}
    assert clean(home.root, home.store).remote[address] > len(DATA)
    assert [path.name for path in (tmp_path / "remote/.resume").iterdir()] == [
        "0" * len(one.digest)
    ]
    assert not what_goes(home.root, home.store).remote
    assert home.store.remote.has(one.kind, one.digest)


def test_what_a_killed_cleaning_left_on_a_remote_goes_with_the_next(tmp_path):
    home = machine(tmp_path, "home", bucket_of(tmp_path))
    one, two = filled(home, 2)
    (tmp_path / f"remote/.users/{one.kind}-{one.digest}/{home.store.remote.users.name}").unlink()
    (tmp_path / f"remote/{one.kind}/{one.digest}/manifest.json").unlink()
    write_head(home, "toy/trained_001", two)
    assert list(clean(home.root, home.store).remote) == [(one.kind, one.digest)]
    assert not (tmp_path / "remote" / one.kind / one.digest).exists()
    assert not list((tmp_path / f"remote/.users/{one.kind}-{one.digest}").glob("*"))


def test_the_store_of_a_home_without_artifacts_is_clean(tmp_path):
    assert what_goes(tmp_path, Store(tmp_path / "store")).bytes == 0
