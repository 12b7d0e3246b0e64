"""What shards a declaration names, in every way it can, and on stores that are not this disk."""

from __future__ import annotations

import logging
import zipfile

import fsspec
import pytest

from fomo_dagster.data.sources.webdataset.listing import list_shards, listing_digest
from fomo_dagster.errors import DataError, InputError


def names(patterns, base):
    return [file.name for file in list_shards(patterns, base)]


@pytest.mark.parametrize(
    "patterns",
    [["tars"], ["tars/"], ["tars/*.tar"], ["tars/{00000..00002}.tar"],
     ["tars/00000.tar", "tars/0000[12].tar"]],
)  # fmt: skip
def test_folders_globs_ranges_and_lists_name_the_same_shards(tmp_path, tars, patterns):
    for shard in range(3):
        tars.shard(tmp_path / "tars", shard, 2)
    (tmp_path / "tars/00000_stats.json").write_text("{}")
    assert names(patterns, tmp_path) == ["00000.tar", "00001.tar", "00002.tar"]
    files = list_shards(patterns, tmp_path)
    assert [file.size for file in files] == [
        (tmp_path / "tars" / file.name).stat().st_size for file in files
    ]


def test_the_folder_that_patterns_start_from_is_no_pattern(tmp_path, tars, monkeypatch):
    base = tmp_path / "a[b] {c,d} * ? ~ x::y"
    for shard in range(3):
        tars.shard(base / "tars [1]", shard, 2)
    tars.shard(tmp_path / "ab {c,d} * ? ~ x::y/tars [1]", 7, 2)  # what it means as a pattern
    every = ["00000.tar", "00001.tar", "00002.tar"]
    for pattern in ("t*/*.tar", "**/*.tar", "tars [[]1]/{00000..00002}.tar"):
        assert names([pattern], base) == every, pattern
    assert names(["tars [[]1]/0000[12].tar", str(tmp_path / "ab*/tars*/*")], base) == [
        "a[b] {c,d} * ? ~ x::y/tars [1]/00001.tar", "a[b] {c,d} * ? ~ x::y/tars [1]/00002.tar",
        "ab {c,d} * ? ~ x::y/tars [1]/00007.tar",
    ]  # fmt: skip
    assert names(["."], base / "tars [1]") == names(["*.tar"], base / "tars [1]") == every
    monkeypatch.setenv("HOME", str(base))
    assert names(["~/*/*.tar"], tmp_path) == every
    (base / "packed").mkdir()
    (base / "packed/1.tar.gz").touch()
    with pytest.raises(DataError, match=r"it holds '1.tar.gz', and images are read from uncompr"):
        names(["packed"], base)


def test_a_range_leaves_out_what_is_not_there_and_says_so(tmp_path, tars, caplog):
    for shard in (0, 2):
        tars.shard(tmp_path, shard, 2)
    with caplog.at_level(logging.WARNING):
        assert names(["{00000..00002}.tar"], tmp_path) == ["00000.tar", "00002.tar"]
    assert "1 shards" in caplog.text
    assert "00001.tar" in caplog.text


def test_nothing_found_is_an_error_that_names_it(tmp_path, tars):
    tars.shard(tmp_path, 0, 2)
    for patterns in (["none"], ["none/*.tar"], ["{00007..00008}.tar"], ["00000.tar", "9.tar"]):
        with pytest.raises(DataError, match=r"there are no shards .*: nothing at .*start from "):
            list_shards(patterns, tmp_path)
    with pytest.raises(InputError, match="cannot be opened"):
        list_shards(["nosuchstore://bucket/x.tar"], tmp_path)
    for pattern in ("{0..9999999}.tar", "{0..9}" * 9, "{a,b}" * 30, "{000..999999999999..7}"):
        with pytest.raises(InputError, match="are more than 1,000,000: correct the range"):
            list_shards([pattern], tmp_path)


def test_names_do_not_tell_where_shards_lie_and_tell_folders_apart(tmp_path, tars):
    for part in "ab":
        tars.shard(tmp_path / "here" / part, 0, 2)
    assert names(["here/*/*.tar"], tmp_path) == ["a/00000.tar", "b/00000.tar"]
    (tmp_path / "here").rename(tmp_path / "there")
    assert names(["there/a", "there/b"], tmp_path) == ["a/00000.tar", "b/00000.tar"]


def test_stores_that_are_not_this_disk_are_listed_with_addresses_that_open(tmp_path, tars):
    memory = fsspec.filesystem("memory")
    archive = tmp_path / "shards.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for shard in range(2):
            path = tars.shard(tmp_path, shard, 2)
            zipped.write(path, f"set/{path.name}")
            memory.pipe(f"/listing/{path.name}", path.read_bytes())
    for patterns in (
        ["memory://listing"],
        ["memory://listing/{00000..00001}.tar"],
        [f"zip://set/*.tar::{archive}"],
        [f"zip://set/{{00000..00001}}.tar::file://{archive}"],
    ):
        files = list_shards(patterns, tmp_path)
        assert [file.name for file in files] == ["00000.tar", "00001.tar"]
        for file in files:
            with fsspec.open(file.url) as opened:
                assert opened.read() == (tmp_path / file.name).read_bytes()
            assert file.version
    memory.rm("/listing", recursive=True)


def test_the_listings_digest_is_of_names_sizes_and_versions(tmp_path, tars):
    tars.shard(tmp_path / "here", 0, 2)
    before = list_shards(["here"], tmp_path)
    (tmp_path / "here").rename(tmp_path / "there")
    assert listing_digest(list_shards(["there"], tmp_path)) == listing_digest(before)
    tars.shard(tmp_path / "there", 1, 2)
    assert listing_digest(list_shards(["there"], tmp_path)) != listing_digest(before)
