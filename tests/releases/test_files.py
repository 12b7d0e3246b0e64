"""The files of releases: which are whose, how they are found, and which of them cleaning leaves."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.errors import InputError
from fomo_dagster.home import Home
from fomo_dagster.releases.files import FILES, files_record, record_files, released_files
from fomo_dagster.releases.promoting import give_alias, promote, remove_alias, roll_back
from fomo_dagster.releases.records import OvertakenError, ReleaseLog
from fomo_dagster.store.cleaning import clean, what_goes
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.tables.views import query
from tests.releases.conftest import PASSED, stage

SERVER = """
import sys
from pathlib import Path
from fomo_dagster.home import Home
from fomo_dagster.releases.files import released_files
print(released_files(Home(Path(sys.argv[1])), "search", 1).folder, flush=True)
sys.stdin.read()
"""


def written(log, number, forms=("card",)):
    """What the files of a release are in the store, recorded."""

    def make(folder):
        (folder / FILES).mkdir()
        (folder / FILES / "README.md").write_text(f"release {number}")

    recipe = Recipe("release_files", 1, {"number": number, "forms": list(forms)})
    artifact = log.home.store.get_or_make(recipe, make)
    record_files(log, number, (artifact.kind, artifact.digest), forms)
    return artifact.kind, artifact.digest


def released(log, count):
    """Releases 1 to `count`, each with its files; where these are."""
    files = []
    for number in range(1, count + 1):
        live = log.read().live
        promote(log, stage(log.home, number), [PASSED], live, "manual", first=live is None)
        files.append(written(log, number))
    return files


def test_files_of_what_is_live_and_of_others_are_found_by_the_records(log, home):
    assert released_files(home, "search") is None
    released(log, 2)
    live = released_files(home, "search")
    assert (live.number, live.forms, live.candidate.stage) == (2, ("card",), 2)
    assert (live.folder / "README.md").read_text() == "release 2"
    first = released_files(home, "search", 1)
    assert (first.folder / "README.md").read_text() == "release 1"
    with pytest.raises(InputError, match="search has no release 3: there are 1 to 2"):
        released_files(home, "search", 3)


def test_between_a_promotion_and_its_files_there_are_none(log, home):
    released(log, 1)
    promote(log, stage(home, 2), [PASSED], 1, "manual")
    assert released_files(home, "search") is None
    assert released_files(home, "search", 1) is not None
    roll_back(log)
    assert released_files(home, "search").number == 1


def test_other_forms_take_the_place_of_those_before_and_the_same_are_recorded_once(log, home):
    released(log, 1)
    other = written(log, 1, ("card", "onnx"))
    assert released_files(home, "search").forms == ("card", "onnx")
    before = len(log.read().records)
    assert record_files(log, 1, other, ("card", "onnx")) is None
    assert len(log.read().records) == before


def test_files_that_are_recorded_meanwhile_overtake_nobody(log, home):
    released(log, 1)
    seen = log.read()
    written(log, 1, ("onnx",))
    record = log.append(seen, "alias", release=1, alias="stable")
    assert (record.entry, log.read().aliases["stable"]) == (4, 1)
    written(log, 1, ("openclip",))
    with pytest.raises(OvertakenError, match="recorded a alias first"):
        log.append(seen, "alias", release=1, alias="other")


def test_cleaning_keeps_the_files_of_what_a_name_stands_for(log, home):
    files = released(log, 5)
    give_alias(log, "stable", 1)
    gone = {files[1], files[2]}  # neither live, nor live before, nor called anything
    assert set(what_goes(home.root, home.store).artifacts) == gone
    assert set(clean(home.root, home.store).artifacts) == gone
    assert released_files(home, "search", 2) is None
    assert released_files(home, "search", 1) is not None
    roll_back(log, 2)
    assert set(what_goes(home.root, home.store).artifacts) == {files[3]}
    replaced = written(log, 1, ("onnx",))
    gone = set(what_goes(home.root, home.store).artifacts)
    assert files[0] in gone
    assert replaced not in gone


@pytest.mark.slow
def test_cleaning_takes_the_files_of_what_lost_its_alias(log, home):
    for number in (1, 2, 3):
        promote(log, stage(home, number), [PASSED], log.read().live, "manual", first=number == 1)
        written(log, number)
    give_alias(log, "stable", 1)
    clean(home.root, home.store)
    assert released_files(home, "search", 1) is not None
    remove_alias(log, "stable")
    clean(home.root, home.store)
    assert released_files(home, "search", 1) is None


def test_files_that_a_process_was_given_stay_until_it_ends(log, home):
    files = released(log, 3)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(home.root)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    readme = Path(server.stdout.readline().strip()) / "README.md"
    assert clean(home.root, home.store).artifacts == {}
    assert readme.read_text() == "release 1"
    server.communicate(timeout=60)
    assert set(clean(home.root, home.store).artifacts) == {files[0]}


def test_another_machine_fetches_the_files_that_the_records_name(tmp_path):
    url = f"file://{tmp_path / 'shared'}"
    here, there = (Home(tmp_path / name, url) for name in ("here", "there"))
    released(ReleaseLog(here, "search"), 1)
    ReleaseLog(there, "search").join()
    found = released_files(there, "search")
    assert found.folder.is_relative_to(there.root)
    assert (found.folder / "README.md").read_text() == "release 1"


def test_records_of_files_are_told_and_queried(log, home):
    (files,) = released(log, 1)
    rows = query(
        home.root,
        "SELECT release, live, forms->>0 AS form, files->>1 AS digest FROM releases "
        "WHERE kind = 'files'",
    )
    assert rows.rows() == [(1, 1, "card", files[1])]


def test_files_are_copied_to_a_new_folder_or_it_is_said_why_not(log, home, tmp_path, monkeypatch):
    monkeypatch.setenv("FOMO_HOME", str(home.root))

    def copy(*arguments):
        done = CliRunner().invoke(app, ["releases", *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    promote(log, stage(home, 1), [PASSED], None, "manual", first=True)
    target = tmp_path / "copied"
    with pytest.raises(InputError, match=r"release 1 \(daily, stage 1\) of search were never wr"):
        copy("search", "--files", str(target))
    written(log, 1)
    promote(log, stage(home, 2), [PASSED], 1, "manual")
    written(log, 2)
    assert copy("search", "--files", str(target)).endswith(f"stage 2): card in {target}\n")
    assert (target / "README.md").read_text() == "release 2"
    with pytest.raises(InputError, match="not empty"):
        copy("search", "--files", str(target))
    copy("search", "--files", str(tmp_path / "first"), "--number", "1")
    assert (tmp_path / "first" / "README.md").read_text() == "release 1"
    home.store.retire(*files_record(log.read(), 1).files)
    with pytest.raises(InputError, match=r"no longer in the store.*`fomo rollback search --to 1`"):
        copy("search", "--files", str(tmp_path / "other"), "--number", "1")
    home.store.retire(*files_record(log.read(), 2).files)
    with pytest.raises(InputError, match=r"in the store: `fomo run daily` writes them again, if"):
        copy("search", "--files", str(tmp_path / "other"))
    with pytest.raises(InputError, match="--number says whose files to copy"):
        copy("search", "--number", "1")
    with pytest.raises(InputError, match="--files is about one release name"):
        copy("--files", str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()
    assert "files of release 2: card" in copy("search")
