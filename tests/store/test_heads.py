"""Heads: a changed bit is noticed, said, and counts as a head that is not there."""

import json

import pytest

from fomo_dagster.errors import StoreError
from fomo_dagster.store.heads import Head, Heads

HEAD = Head(
    asset="e/scores", kind="scores", experiment="e", stage=None, digest="1" * 32,
    data_version="v", code_version="c", recipes={"only": {"name": "café"}},
    artifacts={"only": ("scores", "1" * 32)}, facts={"value": 12.5}, status="computed",
    recorded_at="2026-03-04T05:06:07+00:00", seconds=1.5, tables={"scores": "2" * 32},
)  # fmt: skip


@pytest.fixture
def heads(tmp_path):
    heads = Heads(tmp_path)
    heads.write(HEAD)
    return heads


def test_a_head_is_read_as_it_was_written_and_is_json(heads):
    assert heads.read("e/scores") == HEAD
    assert json.loads(heads.path("e/scores").read_text())["facts"] == {"value": 12.5}


def test_no_flipped_bit_of_a_head_is_ever_read(heads, caplog):
    path = heads.path("e/scores")
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ (1 << place % 8)]) + good[place + 1 :])
        assert heads.read("e/scores") is None, place
    path.write_bytes(good)
    assert heads.read("e/scores") == HEAD
    assert "e/scores.json is damaged (its checksum" in caplog.text
    assert "`fomo run` writes it again" in caplog.text


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"artifacts": {"only": 1}}'],
)
def test_what_is_no_head_counts_as_none(heads, content):
    heads.path("e/scores").write_bytes(content)
    assert heads.read("e/scores") is None


def test_the_head_of_another_asset_counts_as_none(heads):
    heads.path("e/other").write_bytes(heads.path("e/scores").read_bytes())
    assert heads.read("e/other") is None


def test_a_head_from_before_there_were_checksums_is_read(heads):
    fields = json.loads(heads.path("e/scores").read_text())
    for name in ("checksum", "checked_at", "tables"):
        del fields[name]
    heads.path("e/scores").write_text(json.dumps(fields))
    read = heads.read("e/scores")
    assert (read.facts, read.tables) == (HEAD.facts, None)


def test_what_cannot_be_read_is_no_damage(heads):
    heads.path("e/scores").unlink()
    heads.path("e/scores").mkdir()
    with pytest.raises(StoreError, match=r"e/scores in .* cannot be read \(Is a dir"):
        heads.read("e/scores")
