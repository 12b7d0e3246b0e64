"""What has arrived of a growing stream, in which order, and under which names."""

import pytest

from fomo_dagster.errors import InputError
from fomo_dagster.streams.growing import arrivals, arrived_datasets


@pytest.fixture
def incoming(tmp_path):
    for name in ("2024-02", "2024-01", ".hidden", "later.partial", "half.part", "copy.TMP", "b"):
        (tmp_path / name).mkdir()
    for name in ("2024-03.csv", "a.jsonl", "c.parquet", "notes.txt", "d.csv.tmp", ".e.csv"):
        (tmp_path / name).touch()
    return tmp_path


def test_folders_and_tables_arrive_by_name_once_they_have_their_final_names(incoming):
    names = [path.name for path in arrivals(incoming)]
    assert names == ["2024-01", "2024-02", "2024-03.csv", "a.jsonl", "b", "c.parquet"]
    (incoming / "later.partial").rename(incoming / "2024-02a")
    assert [path.name for path in arrivals(incoming)][2] == "2024-02a"


def test_datasets_are_named_by_the_stream_and_the_entry(incoming):
    assert {name: path.name for name, path in arrived_datasets("live", incoming).items()} == {
        "live_2024_01": "2024-01", "live_2024_02": "2024-02", "live_2024_03": "2024-03.csv",
        "live_a": "a.jsonl", "live_b": "b", "live_c": "c.parquet",
    }  # fmt: skip


@pytest.mark.parametrize("other", ["2024_01", "2024 01", "2024-01.csv"])
def test_two_entries_of_one_name_are_refused(incoming, other):
    (incoming / other).touch() if other.endswith("csv") else (incoming / other).mkdir()
    with pytest.raises(InputError, match=r"'live_2024_01': rename one") as raised:
        arrived_datasets("live", incoming)
    assert repr(other) in str(raised.value)
    assert repr("2024-01") in str(raised.value)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"incoming.*No such file"):
        arrivals(tmp_path / "incoming")
