"""What the commands print of a history, and what they refuse."""

import json

import pytest
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.errors import InputError
from fomo_dagster.home import Home
from fomo_dagster.releases.promoting import promote
from fomo_dagster.releases.records import ReleaseLog
from tests.releases.conftest import PASSED, stage


@pytest.fixture
def released(home, monkeypatch):
    """A home with two releases, which commands see."""
    monkeypatch.setenv("FOMO_HOME", str(home.root))
    log = ReleaseLog(home, "search")
    for number in (1, 2):
        live = log.read().live
        promote(log, stage(home, number), [PASSED], live, "manual", first=live is None)
    return log


def fomo(*arguments):
    done = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_all_that_happened_is_there_as_json(released):
    told = json.loads(fomo("releases", "search", "--json"))
    assert (told["live"], told["aliases"]) == (2, {"previous": 1})
    assert [record["candidate"]["stage"] for record in told["records"]] == [1, 2]
    assert told["records"][0]["gates"][0]["said"] == PASSED.said
    assert json.loads(fomo("releases", "--json")) == [told]


def test_each_name_has_a_line_with_what_is_live(released):
    assert "release 2 (daily, stage 2)" in fomo("releases")
    assert "since (UTC)" in fomo("releases")
    assert "at (UTC)" in fomo("releases", "search")


def test_an_alias_is_given_and_moved(released):
    assert fomo("alias", "search", "stable", "1") == "stable of search is release 1\n"
    with pytest.raises(InputError, match="`--move` gives it to release 2"):
        fomo("alias", "search", "stable", "2")
    assert fomo("alias", "search", "stable", "2", "--move") == "stable of search is release 2\n"
    assert "stable: release 2 (daily, stage 2)" in fomo("releases", "search")


def test_an_alias_is_removed_or_given_and_not_both(released):
    fomo("alias", "search", "stable", "1")
    with pytest.raises(InputError, match="give no NUMBER or --move"):
        fomo("alias", "search", "stable", "1", "--remove")
    with pytest.raises(InputError, match="which release is to be stable"):
        fomo("alias", "search", "stable")
    told = fomo("alias", "search", "stable", "--remove")
    assert told == "no release of search is called stable any more\n"
    shown = fomo("releases", "search")
    assert "nothing is called stable" in shown
    assert "stable: release" not in shown


def test_a_rollback_names_the_number_and_keeps_the_reason(released):
    told = fomo("rollback", "search", "--to", "1", "--reason", "wrong prices")
    assert told == "release 1 is live as search\n"
    assert "wrong prices" in fomo("releases", "search")


def test_another_homes_history_is_joined_by_its_name(tmp_path, monkeypatch):
    url = f"file://{tmp_path / 'shared'}"
    first = Home(tmp_path / "first", url)
    promote(ReleaseLog(first, "search"), stage(first, 1), [PASSED], None, "manual", first=True)
    monkeypatch.setenv("FOMO_HOME", str(tmp_path / "second"))
    monkeypatch.setenv("FOMO_STORE", url)
    assert fomo("releases") == (
        f"another home has releases of search on {url}: `fomo releases search --join` takes part "
        "in them\n"
    )
    with pytest.raises(InputError, match="--join is about one release name"):
        fomo("releases", "--join")
    with pytest.raises(InputError, match=r"taken on .*`fomo releases search --join`"):
        fomo("releases", "search")
    assert "live: release 1 (daily, stage 1)" in fomo("releases", "search", "--join")
    assert "another home" not in fomo("releases")
    with pytest.raises(InputError, match="nothing was released as 'serch'"):
        fomo("releases", "serch")
