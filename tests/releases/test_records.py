"""Records of releases: only ever added, whole, one after the other, wherever they are kept."""

import threading
from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.exporting.subject import DataUse, Provenance
from fomo_dagster.home import Home
from fomo_dagster.releases.history import licences_said
from fomo_dagster.releases.promoting import give_alias, promote, refuse, remove_alias, roll_back
from fomo_dagster.releases.records import OvertakenError, ReleaseLog, names_of
from fomo_dagster.releases.verdicts import NOTHING_LIVE, Verdict
from fomo_dagster.store.sealed import sealed, unsealed
from fomo_dagster.tables.views import query
from tests.releases.conftest import LOST, PASSED, stage


def released(log, count):
    for number in range(1, count + 1):
        reference = log.read().live
        promote(
            log, stage(log.home, number), [PASSED], reference, "manual", first=reference is None
        )


def test_a_record_is_read_as_it_was_written(log, home):
    candidate = stage(home, 1)
    written = promote(log, candidate, [PASSED], None, "manual", first=True, reason="we need one")
    (read,) = log.read().records
    assert read == written
    assert (read.release, read.live, read.candidate, read.gates) == (1, 1, candidate, (PASSED,))
    assert names_of(home) == ["search"]


def test_what_it_was_trained_on_is_read_as_it_was_written_and_may_be_missing(log, home):
    data = (DataUse(dataset="birds", use="update", samples=9, licence="CC BY-NC 4.0"),)
    provenance = Provenance(
        experiment="daily", stage=1, backbone="toy", method="finetune", data=data, foreign=("a",)
    )
    told = replace(stage(home, 1), roles={"birds": "adaptation"}, provenance=provenance)
    promote(log, told, [PASSED], None, "manual", first=True)
    assert log.read().live_candidate == told
    (said,) = licences_said(log.read())
    assert said == "the licence of birds (CC BY-NC 4.0) forbids commercial use"
    path = home.root / "releases" / "search" / "000001.json"
    fields = unsealed(path.read_bytes())
    for name in ("roles", "provenance"):  # as it was before
        del fields["candidate"][name]
    for name in ("files", "forms"):
        del fields[name]
    path.write_bytes(sealed(fields))
    assert log.read().live_candidate == stage(home, 1)
    assert licences_said(log.read()) == []


def test_what_is_live_follows_promotions_and_rollbacks(log):
    assert log.read().live is None
    released(log, 3)
    assert log.read().aliases == {"previous": 2}
    roll_back(log)
    history = log.read()
    assert (history.live, history.aliases["previous"]) == (2, 3)
    roll_back(log, 1, reason="wrong prices")
    assert [record.live for record in log.read().records] == [1, 2, 3, 2, 1]
    promote(log, stage(log.home, 4), [PASSED], 1, "automatic")
    assert log.read().live == 4  # numbers are never given twice
    with pytest.raises(InputError, match="search has no release 9: there are 1 to 4"):
        roll_back(log, 9)
    with pytest.raises(InputError, match="release 4 of search is live already"):
        roll_back(log, 4)


def test_of_many_who_promote_at_once_one_does_and_the_others_are_told(log, home):
    released(log, 1)
    candidates = [stage(home, number) for number in range(2, 10)]
    start, told = threading.Barrier(len(candidates)), []

    def go(candidate):
        start.wait()
        try:
            promote(ReleaseLog(home, "search"), candidate, [PASSED], 1, "manual")
        except InputError as error:
            told.append(str(error))

    threads = [threading.Thread(target=go, args=(one,)) for one in candidates]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = log.read()
    assert (len(history.records), history.live, len(told)) == (2, 2, 7)
    for said in told:  # by the record that took the number, or by what was live when it looked
        assert "recorded a release first" in said or "was held against release 1, and" in said


def test_who_decided_on_what_is_no_longer_so_adds_nothing(log):
    released(log, 2)
    old = log.read()
    roll_back(log)
    with pytest.raises(OvertakenError, match=r"recorded a rollback first, at .*release 1 is live"):
        log.append(old, "rollback", release=1, live=1)
    assert len(log.read().records) == 3


def test_aliases_are_given_once_and_moved_when_asked(log):
    released(log, 2)
    give_alias(log, "stable", 1)
    with pytest.raises(InputError, match="stable of search is release 1: `--move` gives it to"):
        give_alias(log, "stable", 2)
    with pytest.raises(InputError, match="stable of search is release 1 already"):
        give_alias(log, "stable", 1)
    give_alias(log, "stable", 2, move=True)
    assert log.read().aliases == {"previous": 1, "stable": 2}
    assert log.read().live == 2
    for alias, said in (
        ("live", "follows what is live"), ("a b", "letters, digits"), ("2", "'2' reads like a rel"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            give_alias(log, alias, 1)


def test_a_removed_alias_stands_for_nothing_until_it_is_given_again(log, home):
    released(log, 2)
    give_alias(log, "stable", 1)
    log.append(log.read(), "alias", release=1, alias="2")  # as older versions allowed
    assert remove_alias(log, "2").live == 2
    with pytest.raises(InputError, match="has the alias 'stabel': did you mean 'stable'"):
        remove_alias(log, "stabel")
    remove_alias(log, "stable")
    history = log.read()
    assert (history.aliases, history.removed_aliases) == ({"previous": 1}, {"stable", "2"})
    last = query(home.root, "SELECT kind, alias, release, live FROM releases ORDER BY entry").row(
        -1
    )
    assert last == ("alias", "stable", None, 2)
    with pytest.raises(InputError, match="has the alias 'stable': no alias was given"):
        remove_alias(log, "stable")
    with pytest.raises(InputError, match="'previous' follows what is live, and cannot be removed"):
        remove_alias(log, "previous")
    give_alias(log, "stable", 2)
    assert log.read().removed_aliases == {"2"}


def test_a_refusal_is_recorded_once_for_what_it_was_held_against(log, home):
    released(log, 1)
    bad = stage(home, 2)
    assert refuse(log, bad, [PASSED, LOST], 1) is not None
    assert refuse(log, bad, [PASSED, LOST], 1) is None
    assert log.read().live == 1
    promote(log, stage(home, 3), [PASSED], 1, "manual")
    assert refuse(log, bad, [PASSED, LOST], 2) is not None
    assert [record.kind for record in log.read().records] == [
        "release", "refusal", "release", "refusal",
    ]  # fmt: skip


def test_what_may_not_go_live_is_told_why(log, home):
    candidate = stage(home, 1)
    with pytest.raises(InputError, match=r"nothing is live as search yet.*`--first`"):
        promote(log, candidate, [PASSED], None, "manual")
    wrong = replace(LOST, gate="calibration", said="bad", estimate=9.0)
    with pytest.raises(InputError, match="does not pass the gates of search: calibration: bad"):
        promote(log, candidate, [wrong], None, "manual", first=True)
    with pytest.raises(InputError, match="does not pass the gates of search: retention: ZS −3"):
        promote(log, candidate, [LOST], None, "manual", first=True)
    for gate, found, told in (
        ("protected: birds/robin", "birds/robin −2.00", "protected: birds/robin −2.00"),
        ("data: leakage", "3 of 40 samples: none", "data: leakage: 3 of 40 samples: none"),
    ):
        wrong = replace(LOST, gate=gate, said=found)
        with pytest.raises(InputError, match=f"the gates of search: {told}$"):
            promote(log, candidate, [wrong], None, "manual", first=True)
    compared = Verdict("retention", False, "at most 0.5 below", NOTHING_LIVE)
    promote(log, candidate, [compared], None, "manual", first=True)
    with pytest.raises(InputError, match="release 1 of search is live, so this is not the first"):
        promote(log, stage(home, 2), [PASSED], None, "manual", first=True)
    with pytest.raises(InputError, match="daily, stage 1, is release 1 of search already: it is"):
        promote(log, candidate, [PASSED], 1, "manual")
    with pytest.raises(InputError, match=r"was held against nothing, and release 1.*`fomo run dai"):
        promote(log, stage(home, 2), [PASSED], None, "manual")
    with pytest.raises(InputError, match="does not pass the gates of search: retention: ZS −3"):
        promote(log, stage(home, 2), [PASSED, LOST], 1, "manual")
    with pytest.raises(InputError, match="nothing to go back to: no other release than 1"):
        roll_back(log)


def test_weights_that_are_gone_are_not_put_live(log, home):
    released(log, 2)
    kind, digest = log.read().release(1).candidate.weights
    home.store.retire(kind, digest)
    with pytest.raises(InputError, match=r"weights of release 1 .*daily, stage 1.*`fomo run daily"):
        roll_back(log)
    assert log.read().live == 2
    kind, digest = (lost := stage(home, 3)).weights
    home.store.retire(kind, digest)
    with pytest.raises(InputError, match=r"the weights of daily, stage 3, are no longer in the st"):
        promote(log, lost, [PASSED], 2, "manual")


def test_a_damaged_record_is_named_and_nothing_is_live_by_the_others(log, home):
    released(log, 2)
    path = home.root / "releases" / "search" / "000001.json"
    path.write_bytes(path.read_bytes().replace(b"daily", b"dairy"))
    with pytest.raises(StoreError, match=r"000001.json is damaged \(its checksum.*from a backup"):
        log.read()
    with pytest.raises(StoreError, match=r"000001.json are damaged.*`fomo releases`"):
        query(home.root, "SELECT * FROM releases")


def test_what_was_live_on_a_day_is_a_query(log, home):
    released(log, 2)
    refuse(log, stage(home, 3), [LOST], 2)
    roll_back(log)
    rows = query(
        home.root, "SELECT entry, kind, live, release, experiment, stage FROM releases ORDER BY 1"
    )
    assert rows.rows() == [
        (1, "release", 1, 1, "daily", 1), (2, "release", 2, 2, "daily", 2),
        (3, "refusal", 2, None, "daily", 3), (4, "rollback", 1, 1, None, None),
    ]  # fmt: skip
    at = log.read().records[2].recorded_at
    then = (
        f"SELECT arg_max(live, entry) FROM releases WHERE name = 'search' AND recorded_at <= '{at}'"
    )
    assert query(home.root, then).item() == 2
    moment = datetime.fromisoformat(at).astimezone(ZoneInfo("Asia/Tokyo")).replace(tzinfo=None)
    zoned = f"""
        SELECT arg_max(live, entry) FROM releases WHERE name = 'search'
        AND recorded_at AT TIME ZONE 'UTC' <= TIMESTAMPTZ '{moment} Asia/Tokyo'
    """
    assert query(home.root, zoned).item() == 2
    said = "SELECT gates->0->>'said' FROM releases WHERE kind = 'refusal'"
    assert query(home.root, said).item() == LOST.said


def machines(tmp_path, *names):
    url = f"file://{tmp_path / 'shared'}"
    return [ReleaseLog(Home(tmp_path / name, url), "search") for name in names]


def test_machines_that_share_a_store_have_one_history(tmp_path):
    here, there = machines(tmp_path, "here", "there")
    released(here, 1)
    with pytest.raises(InputError, match=r"taken on file://.*daily, stage 1.*--join"):
        there.read()
    assert " at " in there.join()
    released_there = promote(there, stage(there.home, 2), [PASSED], 1, "manual")
    assert here.read().records[1] == released_there
    roll_back(here)
    assert there.read() == here.read()
    assert there.read().live == 1


def test_a_second_projects_records_never_mix_with_the_firsts(tmp_path):
    here, there = machines(tmp_path, "here", "there")
    alone = ReleaseLog(Home(there.home.root), "search")  # before it had a shared store
    released(alone, 2)
    released(here, 1)
    with pytest.raises(InputError, match="give the release another name"):
        there.join()
    with pytest.raises(InputError, match="the release name 'search' is taken on"):
        there.read()
    assert len(here.read().records) == 1


def test_records_from_before_a_shared_store_are_brought_to_it(tmp_path):
    (here,) = machines(tmp_path, "here")
    released(ReleaseLog(Home(here.home.root), "search"), 2)
    assert here.read().live == 2
    (there,) = machines(tmp_path, "there")
    there.join()
    assert there.read() == here.read()
