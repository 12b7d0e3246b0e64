"""Reading images by offset from tars that Python's own `tarfile` wrote."""

from __future__ import annotations

import io
import os
import pickle
import resource
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fomo_dagster.data.index import INDEX_FILE, OPEN_SHARDS, Index
from fomo_dagster.data.samples import INDEX, SAMPLES
from fomo_dagster.errors import DataError


@pytest.fixture
def images() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    return {f"{i:03d}": rng.bytes(int(rng.integers(0, 3000))) for i in range(300)}


@pytest.fixture
def folder(tmp_path: Path, images: dict[str, bytes]) -> Path:
    rows: list[tuple[object, ...]] = []
    for number, (key, data) in enumerate(images.items()):
        name = f"train-{number // 2:06d}.tar"
        with tarfile.open(tmp_path / name, "a") as tar:
            member = tarfile.TarInfo(key)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    for path in sorted(tmp_path.glob("*.tar")):
        with tarfile.open(path) as tar:
            rows += [
                ("train", m.name, "c", [], "d", path.name, m.offset_data, m.size)
                for m in tar.getmembers()
            ]
    pl.DataFrame(rows, schema=INDEX, orient="row").write_parquet(tmp_path / INDEX_FILE)
    return tmp_path


def read_all(index: Index) -> dict[str, bytes]:
    rows = index.rows("train").select("key", "shard", "offset", "size")
    with ThreadPoolExecutor(8) as pool:
        return dict(pool.map(lambda row: (row[0], index.read(*row[1:])), rows.rows()))


def test_threads_read_every_image_from_more_shards_than_stay_open(
    folder: Path, images: dict[str, bytes]
) -> None:
    assert len(list(folder.glob("*.tar"))) > OPEN_SHARDS
    before = len(os.listdir("/dev/fd"))
    index = Index(folder)
    for _ in range(3):
        assert read_all(index) == images
    assert len(os.listdir("/dev/fd")) <= before + OPEN_SHARDS


def test_few_shards_stay_open_where_few_files_may_be(
    folder: Path, images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    before = len(os.listdir("/dev/fd"))
    index = Index(folder)
    assert read_all(index) == images
    assert before < len(os.listdir("/dev/fd")) <= before + 16


def test_an_index_that_is_let_go_leaves_nothing_open(
    folder: Path, images: dict[str, bytes]
) -> None:
    """Every stage and evaluation has one of its own over the same shards."""
    before = set(os.listdir("/dev/fd"))
    for _ in range(3):
        index = Index(folder)
        index.read(*index.rows("train").select("shard", "offset", "size").row(0))
        assert set(os.listdir("/dev/fd")) != before
        del index
        assert set(os.listdir("/dev/fd")) == before


def test_a_pickled_index_is_small_and_reads_the_same(
    folder: Path, images: dict[str, bytes]
) -> None:
    index = Index(folder)
    assert index.samples.height == len(images)
    sent = pickle.dumps(index)
    assert len(sent) < 1000
    assert read_all(pickle.loads(sent)) == images


def test_an_index_opened_after_the_shards_were_made_again_reads_the_new_ones(folder: Path) -> None:
    row = Index(folder).rows("train").select("shard", "offset", "size").row(0)
    before = Index(folder).read(*row)
    shard = folder / row[0]
    again = bytearray(shard.read_bytes())
    again[row[1] : row[1] + row[2]] = bytes(255 - byte for byte in before)
    shard.unlink()
    shard.write_bytes(again)
    assert Index(folder).read(*row) == bytes(255 - byte for byte in before)


def test_the_sample_table_is_the_index_without_places(folder: Path) -> None:
    index = Index(folder)
    assert dict(index.samples.schema) == INDEX
    assert dict(index.sample_table.schema) == SAMPLES
    assert index.rows("test").is_empty()


def test_a_truncated_shard_is_an_error_that_names_it(folder: Path) -> None:
    index = Index(folder)
    row = index.rows("train").select("shard", "offset", "size").row(1)
    os.truncate(folder / row[0], row[1] + row[2] - 1)
    with pytest.raises(DataError, match=rf"{row[0]} ends early: {row[2] - 1} of {row[2]} bytes"):
        index.read(*row)


def test_a_missing_shard_or_index_is_an_error_that_names_it(folder: Path) -> None:
    with pytest.raises(DataError, match=r"train-009999\.tar"):
        Index(folder).read("train-009999.tar", 0, 1)
    with pytest.raises(DataError, match=r"no index\.parquet in .*nowhere"):
        Index(folder / "nowhere")


@pytest.mark.parametrize(
    "shard",
    ["../outside.tar", "/etc/hostname", "below/a.tar", "..", "../../shards/../a.tar", "a\\b"],
)
def test_an_index_names_no_shard_outside_of_its_folder(tmp_path, shard):
    pl.DataFrame(schema=INDEX).write_parquet(tmp_path / INDEX_FILE)
    with pytest.raises(DataError, match="names the shard"):
        Index(tmp_path).read(shard, 0, 1)
