"""What is packed is there, and comes back bit for bit; at no moment is it half gone."""

import logging
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fomo_dagster.errors import StoreError
from fomo_dagster.home import Home
from fomo_dagster.store import cleaning, packs
from fomo_dagster.store.cleaning import clean, what_goes
from fomo_dagster.store.heads import Head
from fomo_dagster.store.packing import pack, pack_away
from fomo_dagster.store.pins import pins_of
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.store.sizes import bytes_below
from fomo_dagster.store.usage import usage
from tests.store.killing import killed_before

FORK = multiprocessing.get_context("fork")
WEIGHTS = "weights.safetensors"
BASE = Recipe("backbone", 1, {"name": "theta"})


def stage(number):
    return Recipe("trained", 1, {"stage": number}, {"start": BASE.digest})


def address(recipe):
    return recipe.kind, recipe.digest


def writes(number, seed=0):
    """Makes weights near those of number 0; others for another seed."""

    def make(folder):
        random = np.random.default_rng(seed)
        start = random.standard_normal(2000)
        change = np.random.default_rng(number).standard_normal(2000) * 1e-3 * (number > 0)
        save_file({"a": (start * (1 + change)).astype("f4")}, folder / WEIGHTS)
        (folder / "below").mkdir()
        (folder / "below" / "steps.txt").write_text(f"of {number}")
        (folder / "record").mkdir()
        (folder / "record" / "plot.txt").write_text("a plot")
        return {"flops": number}

    return make


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*") if path.is_file()
    }  # fmt: skip


def write_head(home, asset, recipe):
    home.heads.write(
        Head(
            asset=asset, kind=recipe.kind, experiment="toy", stage=1, digest=recipe.digest,
            data_version=recipe.digest, code_version="", recipes={}, facts={}, status="computed",
            artifacts={"only": address(recipe)}, recorded_at="", seconds=None, makes_weights=True,
        )
    )  # fmt: skip


def made(root, count, remote=None):
    """A home with θ₀ and so many stages, which assets point to."""
    home = Home(root, remote)
    for number in range(count + 1):
        recipe = stage(number) if number else BASE
        home.store.get_or_make(recipe, writes(number))
        write_head(home, f"toy/{number}", recipe)
    pins_of(home.root / "store").close()  # as at the end of the process that made them
    return home


def put_away(home, *numbers):
    bases = {address(stage(number)): address(BASE) for number in numbers}
    names = {f"toy/{number}" for number in numbers}
    return pack_away(home.root, home.store, bases, WEIGHTS, lambda root: root.name in names)


def is_packed(home, number):
    return home.store.places.is_packed(*address(stage(number)))


@pytest.fixture
def home(tmp_path):
    return made(tmp_path / "home", 3)


def test_what_is_packed_is_held_and_comes_back_as_it_was(home):
    folder = home.store.folder(*address(stage(1)))
    before, size = files(folder), bytes_below(folder)
    found = put_away(home, 1, 2)
    assert set(found.artifacts) == {address(stage(1)), address(stage(2))}
    assert [is_packed(home, number) for number in (1, 2, 3)] == [True, True, False]
    assert found.packed < 0.8 * found.whole
    assert found.whole == pytest.approx(2 * size, rel=0.01)
    assert home.store.holds(stage(1))
    assert home.store.find_here(stage(1)) is None  # which unpacks nothing
    assert is_packed(home, 1)
    artifact = home.store.get_or_make(stage(1), writes(1))
    assert not artifact.computed
    assert artifact.cost["flops"] == 1
    assert files(folder) == before
    assert is_packed(home, 2)
    assert not put_away(home, 2).artifacts
    assert put_away(home, 1).artifacts == (address(stage(1)),)  # the pack was kept


@pytest.mark.parametrize("damage", ["short", "bit", "missing", "pack.json", "kept", "manifest"])
def test_a_damaged_pack_is_said_set_aside_and_made_again(home, caplog, damage):
    put_away(home, 1)
    folder = home.store.places.packed(*address(stage(1)))
    names = {
        "short": "changes", "bit": "changes", "kept": "kept/below/steps.txt",
        "manifest": "kept/manifest.json",
    }  # fmt: skip
    path = folder / names.get(damage, "pack.json")
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(data[:-1])
    else:
        path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    assert not home.store.holds(stage(1))
    assert f"trained {stage(1).digest} in the store is damaged" in caplog.text
    assert not folder.exists()
    assert len(list(home.store.places.damaged.iterdir())) == 1
    assert home.store.get_or_make(stage(1), writes(1)).computed


def test_a_pack_whose_bytes_are_others_than_its_manifest_says_is_not_taken(home, caplog):
    """As if whoever wrote it had been wrong, and had verified it."""
    put_away(home, 1, 2)
    one, two = (home.store.places.packed(*address(stage(n))) for n in (1, 2))
    shutil.copyfile(two / "changes", one / "changes")
    said = packs._read(one)
    said["files"]["changes"] = packs._entry(one / "changes")
    (one / "pack.json").write_bytes(packs.sealed(said))
    assert home.store.find(stage(1)) is None
    assert f"{WEIGHTS} does not come back from its pack as it was" in caplog.text
    assert home.store.find(stage(2)) is not None


def test_a_pack_without_its_base_counts_as_missing_until_it_is_back(home, caplog):
    put_away(home, 1)
    there = home.store.folder(*address(BASE))
    there.rename(home.root / "elsewhere")
    assert not home.store.holds(stage(1))
    assert home.store.find(stage(1)) is None
    assert f"differs from backbone {BASE.digest}, which is not in the store" in caplog.text
    (home.root / "elsewhere").rename(there)
    assert home.store.holds(stage(1))
    assert home.store.find(stage(1)) is not None


def test_a_base_of_other_bytes_is_named_and_the_pack_replaced(home, caplog):
    put_away(home, 1)
    shutil.rmtree(home.store.folder(*address(BASE)))
    home.store.get_or_make(BASE, writes(0, seed=1))  # as on another machine
    assert not home.store.holds(stage(1))
    assert f"backbone {BASE.digest}, which had another {WEIGHTS} then" in caplog.text
    assert home.store.get_or_make(stage(1), writes(1, seed=1)).computed
    before = files(home.store.folder(*address(stage(1))))
    assert put_away(home, 1).artifacts
    assert files(home.store.find(stage(1)).folder) == before
    assert not list(home.store.places.trash.iterdir())


def test_nothing_whole_goes_whose_base_is_missing_or_damaged(home):
    pack(home.store, address(stage(1)), address(BASE), WEIGHTS)
    weights = home.store.folder(*address(BASE)) / WEIGHTS
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    taken = cleaning.take_whole(home.root, home.store, lambda root: True, [address(stage(1))])
    assert not taken
    weights.write_bytes(data)
    taken = cleaning.take_whole(home.root, home.store, lambda root: True, [address(stage(1))])
    assert list(taken) == [address(stage(1))]


def test_what_is_made_anew_is_not_taken_from_its_pack(home):
    put_away(home, 1)
    home.store.retire(*address(stage(1)))
    assert not home.store.holds(stage(1))
    assert home.store.get_or_make(stage(1), writes(1)).computed


def test_no_pack_is_made_over_a_packed_one_or_of_a_base(home):
    put_away(home, 1)
    with pytest.raises(StoreError, match=rf"cannot be packed over trained {stage(1).digest}"):
        pack(home.store, address(stage(2)), address(stage(1)), WEIGHTS)
    with pytest.raises(StoreError, match="others are unpacked with it"):
        pack(home.store, address(BASE), address(stage(2)), WEIGHTS)
    with pytest.raises(StoreError, match="cannot be packed over trained"):
        pack(home.store, address(stage(2)), address(stage(2)), WEIGHTS)
    with pytest.raises(StoreError, match="has no file 'other'"):
        pack(home.store, address(stage(2)), address(BASE), "other")
    with pytest.raises(StoreError, match=r"cannot be packed: steps\.txt is no safetensors file"):
        pack(home.store, address(stage(2)), address(BASE), "below/steps.txt")
    assert not home.store.places.packed(*address(stage(2))).exists()
    assert not list(home.store.places.staging.iterdir())


def test_a_pack_that_does_not_come_back_is_not_kept(home, monkeypatch):
    monkeypatch.setattr("fomo_dagster.store.byte_planes._with_sign_first", lambda numbers: numbers)
    with pytest.raises(StoreError, match=f"{WEIGHTS} of trained .* so it stays whole"):
        put_away(home, 1)
    assert not home.store.places.packed(*address(stage(1))).exists()
    assert home.store.find_here(stage(1)) is not None


def test_what_else_is_needed_stays_whole(home):
    other = FORK.Process(target=_hold, args=(home, go := FORK.Event(), end := FORK.Event()))
    other.start()
    assert go.wait(20)
    assert not put_away(home, 1).artifacts  # a running process was told that it is there
    end.set()
    other.join(20)
    write_head(home, "other/1", stage(1))
    assert not put_away(home, 1).artifacts  # another asset has it too
    home.heads.remove("other/1")
    weights = home.store.folder(*address(stage(1))) / WEIGHTS
    os.link(weights, home.root / "link")
    assert not put_away(home, 1).artifacts  # nothing would be freed
    (home.root / "link").unlink()
    mark = home.store.places.pending(*address(stage(1)))
    mark.parent.mkdir(exist_ok=True)
    mark.touch()
    assert not put_away(home, 1).artifacts  # it is still to be pushed
    assert mark.exists()
    mark.unlink()
    assert put_away(home, 1).artifacts == (address(stage(1)),)


def _hold(home, go, end):
    assert home.store.holds(stage(1))
    go.set()
    end.wait(20)


def test_cleaning_keeps_packs_with_what_needs_them_and_their_base(home):
    put_away(home, 1, 2)
    home.heads.remove("toy/0")  # of θ₀
    home.heads.remove("toy/2")
    size = bytes_below(home.store.places.packed(*address(stage(2))))
    assert what_goes(home.root, home.store).artifacts == {address(stage(2)): size}
    found = clean(home.root, home.store)
    assert (found.bytes, list(found.artifacts)) == (size, [address(stage(2))])
    assert found.kept_for == {"artifacts that are kept packed": 1}
    assert not home.store.holds(stage(2))
    assert home.store.note(stage(2)).day is not None
    assert home.store.find(stage(1)) is not None
    home.heads.remove("toy/1")
    pins_of(home.root / "store").close()
    assert set(clean(home.root, home.store).artifacts) == {address(BASE), address(stage(1))}
    assert not home.store.places.packed(*address(stage(1))).exists()
    assert not list((home.root / "store/.verified/.packed/trained").iterdir())


def test_usage_counts_what_is_packed(home):
    put_away(home, 1, 2)
    home.store.find(stage(2))
    packed = [bytes_below(home.store.places.packed(*address(stage(n)))) for n in (1, 2)]
    whole = [bytes_below(home.store.folder(*address(stage(n)))) for n in (2, 3)]
    (trained,) = (one for one in usage(home.root, home.store).kinds if one.kind == "trained")
    assert (trained.artifacts, trained.packed) == (3, sum(packed))
    assert trained.bytes == sum(packed) + sum(whole)


def test_whole_files_are_pushed_and_fetched_as_before(tmp_path, caplog):
    url = str(tmp_path / "remote")
    home, other = made(tmp_path / "home", 2, url), Home(tmp_path / "other", url)
    there = home.store.remote.contents()
    before = files(home.store.folder(*address(stage(1))))
    put_away(home, 1)
    assert home.store.remote.contents() == there
    assert files(other.store.find(stage(1)).folder) == before
    assert not clean(home.root, home.store).remote  # it is used, packed as it is
    shutil.rmtree(home.store.folder(*address(BASE)))
    assert home.store.holds(stage(1))  # there
    assert files(home.store.find(stage(1)).folder) == before
    assert "which is not in the store" in caplog.text


def test_two_processes_that_pack_the_same_pack_each_once(tmp_path):
    home = made(tmp_path / "home", 12)
    numbers = range(1, 12)
    before = {n: files(home.store.folder(*address(stage(n)))) for n in numbers}
    taken = FORK.Queue()
    both = [FORK.Process(target=lambda: taken.put(len(put_away(home, *numbers).artifacts)))
            for _ in range(2)]  # fmt: skip
    for one in both:
        one.start()
    total = sum(taken.get(timeout=20) for _ in both)
    for one in both:
        one.join()
    pins_of(home.root / "store").close()
    total += len(put_away(home, *numbers).artifacts)  # what one of the two was using
    assert total == len(numbers)
    assert all(is_packed(home, n) for n in numbers)
    assert {n: files(home.store.find(stage(n)).folder) for n in numbers} == before


def test_two_processes_that_unpack_the_same_find_it(home):
    before = files(home.store.folder(*address(stage(1))))
    put_away(home, 1)
    pins_of(home.root / "store").close()
    both = [FORK.Process(target=lambda: files(home.store.find(stage(1)).folder) == before or 1 / 0)
            for _ in range(2)]  # fmt: skip
    for one in both:
        one.start()
    for one in both:
        one.join(20)
    assert [one.exitcode for one in both] == [0, 0]


def test_nothing_vanishes_under_a_process_that_found_it(tmp_path):
    home = made(tmp_path / "home", 40)

    def look():
        for number in range(1, 41):
            found = home.store.find(stage(number))
            assert (found.folder / "below/steps.txt").read_text() == f"of {number}"

    reader = FORK.Process(target=look)
    reader.start()
    while reader.is_alive():
        put_away(home, *range(1, 41))
    assert reader.exitcode == 0
    assert len(put_away(home, *range(1, 41)).artifacts) <= 40
    assert all(is_packed(home, number) for number in range(1, 41))


OPERATIONS = [
    (Path, "rename"), (Path, "unlink"), (os, "unlink"), (os, "rmdir"), (os, "fsync"),
    (shutil, "copyfile"), (Path, "mkdir"), (packs, "sealed"), (cleaning, "_take"),
]  # fmt: skip


def _until(number, work):
    """Do it, and be killed before the operation of that number."""
    logging.disable()
    killed_before(number, OPERATIONS)
    work()


def killed_everywhere(template, tmp_path, work, holds):
    """Kill `work(home)` before each of its operations in turn, each time in a copy of a home; then
    `holds(home)` must hold. Gives the number of moments."""
    number = 0
    while True:
        home = Home(tmp_path / f"try_{number}")
        shutil.copytree(template.root, home.root)
        process = FORK.Process(target=_until, args=(number, lambda home=home: work(home)))
        process.start()
        process.join(20)
        holds(home)
        shutil.rmtree(home.root)
        if process.exitcode == 0:
            return number
        assert process.exitcode == -signal.SIGKILL
        number += 1


@pytest.mark.kill
def test_packing_killed_anywhere_loses_nothing(tmp_path):
    template = made(tmp_path / "made", 3)
    before = {n: files(template.store.folder(*address(stage(n)))) for n in (1, 2, 3)}

    def holds(home):
        for number in (1, 2, 3):
            assert home.store.holds(stage(number))
            whole = home.store.folder(*address(stage(number)))
            assert is_packed(home, number) or files(whole) == before[number]
        pins_of(home.root / "store").close()
        put_away(home, 1, 2)
        assert [is_packed(home, number) for number in (1, 2, 3)] == [True, True, False]
        clean(home.root, home.store)
        assert not list(home.store.places.staging.glob("*"))
        assert not list(home.store.places.trash.glob("*"))
        assert {n: files(home.store.find(stage(n)).folder) for n in (1, 2, 3)} == before

    moments = killed_everywhere(template, tmp_path, lambda home: put_away(home, 1, 2), holds)
    assert moments > 50


@pytest.mark.kill
def test_unpacking_killed_anywhere_loses_nothing(tmp_path):
    template = made(tmp_path / "made", 1)
    before = files(template.store.folder(*address(stage(1))))
    put_away(template, 1)
    pins_of(template.root / "store").close()

    def holds(home):
        assert home.store.holds(stage(1))
        assert files(home.store.find(stage(1)).folder) == before
        assert not list(home.store.places.staging.glob("*"))

    moments = killed_everywhere(template, tmp_path, lambda home: home.store.find(stage(1)), holds)
    assert moments > 10


@pytest.mark.kill
def test_a_cleaning_of_packs_killed_anywhere_leaves_them_there_or_gone(tmp_path):
    template = made(tmp_path / "made", 2)
    put_away(template, 1, 2)
    template.store.find(stage(2))  # both whole and packed
    for number in (1, 2):
        template.heads.remove(f"toy/{number}")
    pins_of(template.root / "store").close()

    def holds(home):
        for number in (1, 2):
            found = home.store.find(stage(number))
            assert found is not None or home.store.note(stage(number)).day is not None
            if found is not None:
                assert (found.folder / "below/steps.txt").read_text() == f"of {number}"
        pins_of(home.root / "store").close()
        clean(home.root, home.store)
        assert list(home.store.places.all()) == [address(BASE)]
        assert not list(home.store.places.trash.iterdir())

    moments = killed_everywhere(
        template, tmp_path, lambda home: clean(home.root, home.store), holds
    )  # fmt: skip
    assert moments > 10
