"""Streamed pools: what stands at a position depends on nothing but seed, stage, position, shards.

Archives (`zip://…::archive`) stand for remote stores: their tars have to be fetched to be read.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
import pickle
import shutil
import threading
import zipfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import fsspec
import open_clip
import pytest
import torch
from fsspec.implementations.zip import ZipFileSystem
from PIL import Image

from fomo_dagster.data.batches import Batches
from fomo_dagster.data.mixture import StepSizes
from fomo_dagster.data.sources.webdataset import shard_cache, streamed
from fomo_dagster.data.sources.webdataset.listing import ShardFile, list_shards
from fomo_dagster.data.sources.webdataset.shard_cache import ShardCache
from fomo_dagster.data.sources.webdataset.streamed import StreamedPool, Visits
from fomo_dagster.data.transforms import augment
from fomo_dagster.errors import DataError, InputError

IMAGES = ("jpg", "png")
SIZES = (10, 7, 12, 9, 11)  # usable samples of the shards; a visit wraps where it has more


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr(shard_cache, "WAITS_SECONDS", (0.0, 0.0))


@pytest.fixture
def remote(tmp_path, tars):
    """The shards of an archive."""
    return pack(tmp_path, tars, SIZES)


def pack(root: Path, tars, sizes) -> list[ShardFile]:
    with zipfile.ZipFile(root / "remote.zip", "w") as zipped:
        for number, size in enumerate(sizes):
            path = tars.shard(root / "made", number, size)
            zipped.write(path, path.name)
    shutil.rmtree(root / "made")
    return list_shards([f"zip://*.tar::{root / 'remote.zip'}"], root)


def cache_of(root: Path, limit: int = 1 << 30) -> ShardCache:
    return ShardCache(root / "cache", limit, IMAGES)


def pool_of(root: Path, shards, visits=(8, 2), limit: int = 1 << 30) -> StreamedPool:
    return StreamedPool("pretraining", shards, Visits(*visits), cache_of(root, limit))


def captions(pool, positions, seed=3, stage=1):
    return [pool.sample(seed, stage, position).captions[0] for position in positions]


def shard_of(caption: str) -> int:
    return int(caption.split()[1]) // 10_000


def test_a_position_has_one_sample_however_it_is_come_by(tmp_path, remote, tars):
    one = captions(pool_of(tmp_path, remote), range(100))
    backwards = captions(pool_of(tmp_path / "other", remote), reversed(range(100)))
    assert one == backwards[::-1]
    pool = pickle.loads(pickle.dumps(pool_of(tmp_path, remote)))
    assert captions(pool, [57, 3]) == [one[57], one[3]]
    image = pool.sample(3, 1, 57).image
    number = int(one[57].split()[1])
    assert image.getpixel((5, 5)) == pytest.approx((number * 3 % 256, number // 85, 128), abs=4)
    assert captions(pool, range(100), seed=4) != one
    assert captions(pool, range(100), stage=2) != one


def test_where_the_shards_lie_means_nothing(tmp_path, remote):
    with zipfile.ZipFile(tmp_path / "remote.zip") as zipped:
        zipped.extractall(tmp_path / "here")
    local = list_shards(["here"], tmp_path)
    assert captions(pool_of(tmp_path, local), range(60)) == captions(
        pool_of(tmp_path, remote), range(60)
    )
    assert not list((tmp_path / "here").glob("[!0]*"))


def test_a_group_visits_its_shards_evenly_and_each_round_all_of_them(tmp_path, remote):
    drawn = [shard_of(text) for text in captions(pool_of(tmp_path, remote, (6, 2)), range(6 * 10))]
    for group in range(5):
        counts = Counter(drawn[12 * group : 12 * group + 12])
        assert set(counts.values()) <= {6, 12}
    assert Counter(drawn) == dict.fromkeys(range(5), 12)  # two rounds: each shard twice
    assert len({tuple(drawn[12 * g : 12 * g + 12]) for g in range(5)}) == 5


def test_no_sample_of_a_shard_repeats_before_all_of_it_were_drawn(tmp_path, remote):
    drawn = captions(pool_of(tmp_path, remote, (6, 2)), range(6 * 5 * 4))  # four rounds, 24 each
    for number, size in enumerate(SIZES):
        counts = Counter(text for text in drawn if shard_of(text) == number)
        assert sum(counts.values()) == 24
        assert len(counts) == size
        assert max(counts.values()) - min(counts.values()) <= 1


def test_a_shard_without_samples_gives_its_turn_to_the_next(tmp_path, tars, caplog):
    shards = pack(tmp_path, tars, (10, 0, 10))
    with caplog.at_level(logging.WARNING):
        drawn = captions(pool_of(tmp_path, shards, (5, 1)), range(15))
    counts = Counter(map(shard_of, drawn))
    assert sum(counts.values()) == 15
    assert 1 not in counts
    assert sorted(counts.values()) == [5, 10]
    assert len(set(drawn)) > 10  # what stands in is not what the shard draws itself
    assert captions(pool_of(tmp_path, shards, (5, 1)), range(15)) == drawn


def test_a_set_of_nothing_usable_is_an_error(tmp_path, tars):
    shards = pack(tmp_path, tars, (0, 0, 0))
    with pytest.raises(DataError, match="3 shards of the pretraining pool in a row have no usable"):
        captions(pool_of(tmp_path, shards), [0])


def test_broken_members_are_skipped_counted_and_said(tmp_path, tars, caplog):
    content = tars.content(0, 5) | {"x.jpg": tars.picture(1)} | {"y.txt": b"a text"}
    bad = tars.members(9)
    bad["000000009.jpg"] = bad["000000009.jpg"][:40]
    tars.write(tmp_path / "tars/00000.tar", content | bad)
    tars.shard(tmp_path / "tars", 1, 5)
    pool = pool_of(tmp_path, list_shards(["tars"], tmp_path), (5, 1))
    drawn = captions(pool, range(60))
    assert {shard_of(text) for text in drawn} == {0, 1}
    assert "caption 9" not in drawn
    assert "2 members of the shard" in caplog.text
    assert "1 × it has no text" in caplog.text
    assert "cannot be decoded" in caplog.text
    record = pool.record(3, 1, 60)
    assert (record["streamed_shards"], record["skipped_members"]) == (2, 2)
    assert drawn == captions(pool_of(tmp_path, list_shards(["tars"], tmp_path), (5, 1)), range(60))


def test_transparent_and_flat_images_of_streamed_shards_are_counted_and_said(
    tmp_path, tars, caplog
):
    half = Image.new("RGBA", (64, 64))  # black, of which nothing shows but where it is red
    half.paste((255, 0, 0, 255), (0, 0, 64, 30))
    noise = Image.effect_noise((64, 64), 60).convert("RGB")
    content = {}
    for number in range(230):
        image = (half, Image.new("RGB", (64, 64), "navy"), noise)[min(number % 10, 2)]
        file = io.BytesIO()
        image.save(file, "PNG")
        content |= {f"{number:03d}.png": file.getvalue(), f"{number:03d}.txt": b"a text"}
    tars.write(tmp_path / "tars/00000.tar", content)
    pool = pool_of(tmp_path, list_shards(["tars"], tmp_path), (5, 1))
    captions(pool, range(3))
    record = pool.record(3, 1, 3)
    looked_at = range(0, 230, 3)
    assert record["glimpsed_images"] == len(looked_at)
    assert record["transparent_images"] == sum(n % 10 == 0 for n in looked_at)
    assert record["flat_images"] == sum(n % 10 == 1 for n in looked_at)
    assert "of 77 images of the shard" in caplog.text


def batches(pool, steps=8, workers=0):
    return Batches(
        {"pretraining": pool}, StepSizes.constant({"pretraining": 5}, steps), seed=1, stage=2,
        transform=partial(augment, size=8, crop_scale=(0.3, 0.9)),
        tokenize=open_clip.get_tokenizer("ViT-B-32", context_length=16), workers=workers,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_the_step_to_start_from_change_nothing(tmp_path, remote, workers):
    alone = list(batches(pool_of(tmp_path / "alone", remote, (6, 2))).iterate(0))
    together = pool_of(tmp_path / "together", remote, (6, 2), limit=20_000)  # evicts all the time
    seen = list(batches(together, workers=workers).iterate(3))
    assert len(seen) == 5
    for one, other in zip(alone[3:], seen, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.tokens, other.tokens)


@pytest.mark.slow
def test_threads_and_processes_fetch_a_shard_once(tmp_path, remote, monkeypatch):
    fetched = []
    real = ZipFileSystem.get_file

    def get_file(self, remote_path, local_path, **options):
        fetched.append(remote_path)
        return real(self, remote_path, local_path, **options)

    monkeypatch.setattr(ZipFileSystem, "get_file", get_file)
    cache = cache_of(tmp_path)
    threads = [threading.Thread(target=cache.samples, args=(shard,)) for shard in remote * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(fetched) == [shard.name for shard in remote]
    shutil.rmtree(tmp_path / "cache")
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
        twice = [shard for shard in remote for _ in range(2)]
        found = processes.map(cache.samples, twice)
        assert [samples.height for samples in found] == [size for size in SIZES for _ in range(2)]
    assert len(list((tmp_path / "cache").glob("*.tar"))) == len(remote)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")]


def test_what_was_used_longest_ago_makes_room(tmp_path, remote):
    sizes = [shard.size for shard in remote]
    cache = cache_of(tmp_path, sum(sizes[:3]) + 100)
    for shard in remote[:3]:
        cache.tar(shard)
    cache.tar(remote[0])  # used again: the second is now the oldest
    newest = cache.tar(remote[3])
    there = {shard.name: (tmp_path / "cache" / f"{shard_cache._address(shard)}.tar").exists()
             for shard in remote}  # fmt: skip
    assert there["00000.tar"]
    assert not there["00001.tar"]
    assert newest.exists()
    assert sum(p.stat().st_size for p in (tmp_path / "cache").glob("*.tar")) <= cache.limit_bytes


def test_an_evicted_shard_is_fetched_again_while_others_read(tmp_path, remote):
    streamed._opened.cache_clear()
    pool = pool_of(tmp_path, remote, (6, 2), limit=1)
    assert captions(pool, range(40)) == captions(
        pool_of(tmp_path / "whole", remote, (6, 2)), range(40)
    )


@pytest.mark.parametrize("failures", [1, 2])
def test_a_lost_connection_is_tried_again(tmp_path, remote, monkeypatch, failures):
    left = [ConnectionResetError("reset")] * failures
    real = ZipFileSystem.get_file

    def get_file(self, *arguments, **options):
        if left:
            raise left.pop()
        return real(self, *arguments, **options)

    monkeypatch.setattr(ZipFileSystem, "get_file", get_file)
    assert cache_of(tmp_path).samples(remote[0]).height == SIZES[0]


def test_a_store_that_stays_away_is_an_error_that_names_the_shard(tmp_path, remote, monkeypatch):
    def get_file(self, *arguments, **options):
        raise TimeoutError("no answer")

    monkeypatch.setattr(ZipFileSystem, "get_file", get_file)
    with pytest.raises(DataError, match=r"00000.tar.* could not be fetched in 3 .*no answer"):
        cache_of(tmp_path).tar(remote[0])
    assert not list((tmp_path / "cache").glob("*"))[1:]  # the leases' folder alone


def test_a_shard_that_is_gone_or_another_is_an_error(tmp_path, remote):
    gone = remote[0]._replace(url=remote[0].url.replace("00000", "77777"))
    with pytest.raises(DataError, match=r"77777.tar.* cannot be fetched"):
        cache_of(tmp_path).tar(gone)
    other = remote[0]._replace(size=5)
    with pytest.raises(DataError, match=r"00000.tar.*bytes came, and 5 were listed"):
        cache_of(tmp_path).tar(other)


@pytest.mark.parametrize("listed", [True, False])
def test_a_shard_has_a_limit_of_size(tmp_path, remote, monkeypatch, listed):
    monkeypatch.setenv("FOMO_DOWNLOAD_LIMIT_GIB", str(2000 / 2**30))
    shard = remote[0] if listed else remote[0]._replace(size=None)
    with pytest.raises(
        InputError, match=r"00000\.tar.* exceeds the limit .*FOMO_DOWNLOAD_LIMIT_GIB"
    ):
        cache_of(tmp_path).tar(shard)
    assert not list((tmp_path / "cache").glob("*.tar"))


def test_the_next_group_is_fetched_while_one_is_drawn(tmp_path, remote):
    pool = pool_of(tmp_path, remote, (8, 2))
    before = set(threading.enumerate())
    captions(pool, [0])
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    assert len(list((tmp_path / "cache").glob("*.tar"))) >= 3


def test_a_memory_store_works_in_one_process(tmp_path, tars):
    memory = fsspec.filesystem("memory")
    for number in range(2):
        path = tars.shard(tmp_path, number, 6)
        memory.pipe(f"/streamed/{path.name}", path.read_bytes())
    shards = list_shards(["memory://streamed/{00000..00001}.tar"], tmp_path)
    assert len(set(captions(pool_of(tmp_path, shards, (6, 1)), range(12)))) == 12
    memory.rm("/streamed", recursive=True)
