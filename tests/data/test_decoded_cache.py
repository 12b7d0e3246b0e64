"""Decoded pictures that are kept: those that decoding gives, each decoded once."""

import logging
import pickle
import threading

import numpy as np
import pytest

from fomo_dagster.data import decoded_cache
from fomo_dagster.data.decoded_cache import USED, DecodedCache


@pytest.fixture(autouse=True)
def _anew(monkeypatch):
    monkeypatch.setattr(decoded_cache, "_full", set())


def picture(seed, height=7, width=5):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


class Decoder:
    """Decodes the picture of an offset, and counts."""

    def __init__(self):
        self.decoded = []

    def of(self, offset):
        def decode():
            self.decoded.append(offset)
            return picture(offset, height=3 + offset % 5)

        return decode


def test_each_picture_is_decoded_once_and_by_whoever_comes_first(tmp_path):
    decoder, cache = Decoder(), DecodedCache(tmp_path, "birds", 10**6)
    other = pickle.loads(pickle.dumps(cache))
    for one in (cache, other, cache):
        for offset in range(20):
            found = one.picture("train-0.tar", offset, decoder.of(offset))
            np.testing.assert_array_equal(found, decoder.of(offset)())
            assert found.flags.writeable
            decoder.decoded.pop()
    assert decoder.decoded == list(range(20))


def test_shards_of_one_name_in_other_folders_are_others(tmp_path):
    decoder = Decoder()
    for name, shard in (("a", "0.tar"), ("b", "0.tar"), ("a", "../../shards/x/0.tar")):
        DecodedCache(tmp_path, name, 10**6).picture(shard, 1, decoder.of(1))
    assert decoder.decoded == [1, 1, 1]
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", USED}


@pytest.mark.parametrize("damage", ["cut", "zeros", "bit", "empty"])
def test_what_was_damaged_is_decoded_and_written_again(tmp_path, damage):
    decoder, cache = Decoder(), DecodedCache(tmp_path, "birds", 10**6)
    cache.picture("0.tar", 4, decoder.of(4))
    (path,) = tmp_path.glob("birds/*/4")
    data = bytearray(path.read_bytes())
    if damage == "bit":
        data[40] ^= 1
    else:
        data = {"cut": data[:-1], "zeros": data[:50] + bytes(len(data) - 50), "empty": b""}[damage]
    path.write_bytes(data)
    for _ in range(2):
        np.testing.assert_array_equal(
            cache.picture("0.tar", 4, decoder.of(4)), picture(4, height=7)
        )
    assert decoder.decoded == [4, 4]


def test_no_more_is_kept_than_there_is_room_for_and_it_is_said_once(tmp_path, caplog):
    decoder, cache = Decoder(), DecodedCache(tmp_path, "birds", 500)
    with caplog.at_level(logging.WARNING):
        for offset in [*range(0, 100, 5)] * 2:
            cache.picture("0.tar", offset, decoder.of(offset))
    kept = [*tmp_path.glob("birds/*/*")]
    assert 0 < sum(path.stat().st_size for path in kept) <= 500
    assert len(decoder.decoded) == 40 - len(kept)
    assert caplog.text.count("no more decoded images are kept") == 1


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_cache(tmp_path, caplog):
    decoder = Decoder()
    (tmp_path / "file").write_text("")
    cache = DecodedCache(tmp_path / "file", "birds", 10**6)
    np.testing.assert_array_equal(cache.picture("0.tar", 0, decoder.of(0)), picture(0, height=3))
    assert "no more decoded images are kept" in caplog.text


def test_threads_and_processes_share_the_room(tmp_path):
    limit = 12 * (24 + 3 * 5 * 3)

    def fill(name):
        cache, decoder = DecodedCache(tmp_path, name, limit), Decoder()
        for offset in range(0, 100, 5):
            cache.picture("0.tar", offset, decoder.of(offset))

    threads = [threading.Thread(target=fill, args=(f"set {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = sum(path.stat().st_size for path in tmp_path.glob("set*/*/*"))
    assert limit / 2 < kept <= limit
    assert int((tmp_path / USED).read_text()) == kept
