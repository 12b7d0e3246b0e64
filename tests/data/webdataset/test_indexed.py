"""An index in place: content is its identity, unchanged tars are not read, changed ones noticed."""

from __future__ import annotations

import pickle
import time

import polars as pl
import pytest

from fomo_dagster.data.sources.splits import SplitRule
from fomo_dagster.data.sources.webdataset import indexed
from fomo_dagster.data.sources.webdataset.indexed import IndexedTars, PlacedIndex, version_of
from fomo_dagster.data.sources.webdataset.source import WebDatasetSource
from fomo_dagster.errors import DataError


@pytest.fixture
def scanned(monkeypatch):
    """The names of the tars that are read."""
    read = []
    real = indexed.scan_tar

    def scan(path, *arguments, **options):
        read.append(path.name)
        return real(path, *arguments, **options)

    monkeypatch.setattr(indexed, "scan_tar", scan)
    return read


def open_tars(root, shards="tars", test_share=0.0):
    return IndexedTars(
        [shards],
        root,
        ("jpg", "png"),
        concept="web",
        split_rule=SplitRule(None, test_share),
        cache=root / "cache",
    )


@pytest.fixture
def settled(monkeypatch):
    """Change times cannot be set back, so the clock tick is taken to be short."""
    monkeypatch.setattr(indexed, "SETTLE_SECONDS", 0.0)


def placed(root, source):
    tars = source.tars()
    samples, *_ = source.index(tars)
    samples.write_parquet(root / "index.parquet")
    return PlacedIndex(root, source.places({tar.name: tar.digest for tar in tars}))


def test_every_image_is_read_where_it_lies(tmp_path, tars):
    for shard in range(3):
        tars.shard(tmp_path / "tars", shard, 10)
    index = placed(tmp_path, open_tars(tmp_path))
    rows = index.rows("train")
    assert len(rows) == 30
    assert rows["concept"].unique().to_list() == ["web"]
    for key, shard, offset, size in rows.select("key", "shard", "offset", "size").rows():
        assert index.read(shard, offset, size) == tars.picture(int(key))
    copy = pickle.loads(pickle.dumps(index))
    assert copy.read(shard, offset, size) == tars.picture(int(key))
    assert not list(tmp_path.glob("cache/*.tar"))


def test_a_second_look_reads_only_what_changed(tmp_path, tars, scanned, settled):
    for shard in range(3):
        tars.shard(tmp_path / "tars", shard, 5)
    time.sleep(0.02)
    first = open_tars(tmp_path).tars()
    assert sorted(scanned) == ["00000.tar", "00001.tar", "00002.tar"]
    assert open_tars(tmp_path).tars() == first
    assert len(scanned) == 3
    tars.shard(tmp_path / "tars", 1, 6)
    time.sleep(0.02)
    second = open_tars(tmp_path).tars()
    assert scanned[3:] == ["00001.tar"]
    assert version_of(second) != version_of(first)
    assert [tar.samples for tar in second] == [5, 6, 5]
    assert len(list((tmp_path / "cache").glob("*.parquet"))) == 3  # the old one is gone


def test_a_tar_that_was_just_written_is_read_again_next_time(tmp_path, tars, scanned):
    tars.shard(tmp_path / "tars", 0, 5)
    for _ in range(2):
        source = open_tars(tmp_path)
        samples, *_ = source.index(source.tars())
        assert len(samples) == 5
    assert scanned == ["00000.tar"] * 2


def test_moved_tars_are_the_same_and_an_old_index_finds_them(tmp_path, tars):
    for shard in range(2):
        tars.shard(tmp_path / "tars", shard, 5)
    before = open_tars(tmp_path).tars()
    (tmp_path / "tars").rename(tmp_path / "moved")
    source = open_tars(tmp_path, "moved")
    assert version_of(source.tars()) == version_of(before)
    places = source.places({tar.name: tar.digest for tar in before})
    assert places["00001.tar"].path == str(tmp_path / "moved" / "00001.tar")


def test_a_tar_that_changed_or_went_after_indexing_is_noticed(tmp_path, tars):
    for shard in range(2):
        tars.shard(tmp_path / "tars", shard, 5)
    source = open_tars(tmp_path)
    digests = {tar.name: tar.digest for tar in source.tars()}
    index = placed(tmp_path, source)
    shard, offset, size = index.rows("train").select("shard", "offset", "size").row(0)
    index.read(shard, offset, size)
    path = tmp_path / "tars" / shard
    data = path.read_bytes()
    path.write_bytes(data[:offset] + b"\0" * size + data[offset + size :])  # of the same length
    with pytest.raises(DataError, match=r"00000.tar changed after it was indexed"):
        index.read(shard, offset, size)
    with pytest.raises(DataError, match=r"1 of 2 tars changed after they were indexed: '00000"):
        open_tars(tmp_path).places(digests)
    path.unlink()
    with pytest.raises(DataError, match=r"1 of 2 tars are not where .* '00000.tar'"):
        open_tars(tmp_path).places(digests)


def test_broken_members_are_listed_with_their_tar(tmp_path, tars):
    tars.write(tmp_path / "tars/00000.tar", tars.members(1) | {"x.jpg": tars.picture(1)})
    tars.write(tmp_path / "tars/00001.tar", tars.members(2) | {"x.txt": b"no image"})
    source = open_tars(tmp_path)
    samples, broken, _ = source.index(source.tars())
    assert samples["key"].to_list() == ["000000001", "000000002"]
    assert broken.select("shard", "key", "reason").rows() == [
        ("00000.tar", "x", "it has no text"),
        ("00001.tar", "x", "it has no image"),
    ]
    assert [tar.broken for tar in source.tars()] == [1, 1]


def test_a_key_that_two_tars_have_is_told_apart_by_the_tars_name(tmp_path, tars):
    tars.write(tmp_path / "tars/a.tar", tars.members(1) | tars.members(2))
    tars.write(tmp_path / "tars/b.tar", tars.members(2) | tars.members(3))
    source = open_tars(tmp_path)
    samples, *_ = source.index(source.tars())
    assert samples["key"].to_list() == ["000000001", "000000003", "a/000000002", "b/000000002"]


def test_a_share_is_held_out_where_it_is_asked_for(tmp_path, tars):
    tars.shard(tmp_path / "tars", 0, 60)
    source = open_tars(tmp_path, test_share=0.5)
    samples, *_ = source.index(source.tars())
    held = samples.filter(pl.col("split") == "test").height
    assert 15 < held < 45


def lost(source):
    return source.index(source.tars()).broken.select("shard", "split", "samples", "reason").rows()


def test_a_lost_shard_counts_with_the_samples_that_it_had(tmp_path, tars):
    for shard, samples in ((0, 20), (2, 30), (4, 8)):
        tars.shard(tmp_path / "tars", shard, samples)
    path = tmp_path / "tars" / "00004.tar"
    path.write_bytes(path.read_bytes()[: 4 * 7 * 512])  # of 8 samples some are left
    (tmp_path / "tars" / "00001_stats.json").write_text('{"count": 99, "successes": 50}')
    source = open_tars(tmp_path, "tars/{00000..00004}.tar")
    left = {tar.name: tar.samples for tar in source.tars()}["00004.tar"]
    assert 0 < left < 8
    found = {shard: samples for shard, _, samples, why in lost(source) if "there" in why}
    assert found == {"00001.tar": 50, "00003.tar": 30}  # what was noted, and the largest other's
    damaged = sum(samples for shard, _, samples, _ in lost(source) if shard == "00004.tar")
    assert damaged == 30 - left
    (tmp_path / "tars" / "00004_stats.json").write_text('{"successes": 8}')
    damaged = sum(samples for shard, _, samples, _ in lost(source) if shard == "00004.tar")
    assert damaged == 8 - left


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "empty"), (b"\x1f\x8b" + b"0" * 600, "compressed: `gunzip` it"), (b"<html>", "damaged")],
)
def test_a_shard_of_which_nothing_can_be_read_counts_whole(tmp_path, tars, data, said):
    tars.shard(tmp_path / "tars", 0, 12)
    (tmp_path / "tars" / "00001.tar").write_bytes(data)
    ((shard, split, samples, reason),) = lost(open_tars(tmp_path))
    assert (shard, split, samples) == ("00001.tar", "train", 12)
    assert said in reason


def test_keys_are_unique_in_a_split_however_tars_repeat_them(tmp_path, tars):
    for shard in ("a", "b"):
        content = {}
        for name in ("x", "y"):
            content |= {f"{name}.jpg": tars.picture(ord(name)), f"{name}.txt": b"text",
                        f"{name}.json": b'{"key": "one"}'}  # fmt: skip
        tars.write(tmp_path / f"tars/{shard}.tar", content | tars.members(ord(shard)))
    source = open_tars(tmp_path)
    samples = source.index(source.tars()).samples
    assert samples["key"].to_list() == [
        "000000097", "000000098", "a/x", "a/y", "b/x", "b/y"
    ]  # fmt: skip


def test_a_key_that_looks_like_one_told_apart_is_told_apart_too(tmp_path, tars):
    for shard, keys in (("a", ("x",)), ("b", ("x", "a/x"))):
        content = {}
        for key in keys:
            content |= {f"{key}.jpg": tars.picture(1), f"{key}.txt": f"{shard} {key}".encode()}
        tars.write(tmp_path / f"tars/{shard}.tar", content)
    source = open_tars(tmp_path)
    samples = source.index(source.tars()).samples
    assert samples.select("key", pl.col("captions").list.first()).rows() == [
        ("a/x", "a x"), ("b/a/x", "b a/x"), ("b/x", "b x")
    ]  # fmt: skip


@pytest.mark.parametrize("other", ["1.TAR", "1.tar.gz", "1.tgz", "1.zip", "more/1.tar"])
def test_archives_beside_the_tars_are_said(tmp_path, tars, other):
    tars.shard(tmp_path / "tars", 0, 2)
    for name in (other, "00000.parquet", "00000_stats.json", ".hidden.tgz"):
        (tmp_path / "tars" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "tars" / name).touch()
    source = open_tars(tmp_path)
    (remark,) = source.remarks(source.tars())
    assert f"archives that are not read: '{other}'; only its files named *.tar are" in remark
    _, notes = WebDatasetSource(shards="tars", index=False).list_tars("web", tmp_path)
    assert notes == (remark,)


def test_shards_named_as_splits_are_those(tmp_path, tars):
    for name, shard in (("cc-train-0", 0), ("cc-train-1", 1), ("cc-validation-0", 2)):
        tars.shard(tmp_path / "tars", shard, 5).rename(tmp_path / "tars" / f"{name}.tar")
    source = open_tars(tmp_path, test_share=0.5)
    counts = dict(source.index(source.tars()).samples.group_by("split").len().rows())
    assert counts == {"train": 10, "test": 5}
    assert "'validation' is taken for it" in source.remarks(source.tars())[0]
    tars.shard(tmp_path / "tars", 3, 5).rename(tmp_path / "tars" / "cc-test-0.tar")
    source = open_tars(tmp_path)
    samples = source.index(source.tars()).samples
    assert samples.filter(split="test")["shard"].unique().to_list() == ["cc-test-0.tar"]
    assert "cc-validation-0.tar" not in samples["shard"]


def test_what_of_the_tars_is_not_used_is_said_once(tmp_path, tars):
    for shard in range(2):
        content = tars.content(shard, 3) | {"a.npy": b"", "b.npy": b""}
        tars.write(tmp_path / f"tars/{shard}.tar", content)
    source = open_tars(tmp_path)
    (remark,) = source.remarks(source.tars())
    assert "4 members and fields of the tars of the dataset 'web' are not used" in remark
    assert "4 × .npy (a.npy in 0.tar)" in remark
