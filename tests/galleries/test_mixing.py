"""Similarities of two models stand beside each other by the rows that both embedded."""

import numpy as np
import pytest

from fomo_dagster.errors import StoreError
from fomo_dagster.galleries import mixing
from fomo_dagster.galleries.files import EmbeddingsWriter
from fomo_dagster.galleries.mixing import CommonRows
from tests.galleries.test_files import rows


def unit(count, size, seed):
    found = np.random.default_rng(seed).normal(size=(count, size))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def written(path, numbers, embeddings):
    with EmbeddingsWriter(path) as writer:
        writer.add(rows(numbers), embeddings)
    return path


def test_the_shift_is_that_of_the_nearest_rows(tmp_path):
    new, old = unit(600, 8, 0), unit(1000, 5, 1)
    common = CommonRows.of(
        written(tmp_path / "new", range(600), new), written(tmp_path / "old", range(1000), old)
    )
    assert np.array_equal(common.newer, new)
    assert np.array_equal(common.older, old[:600])
    query, before = unit(1, 8, 2)[0], unit(1, 5, 3)[0]
    own, other = new.astype(float) @ query, old[:600].astype(float) @ before
    expected = np.sort(own)[-12:].mean() - np.sort(other)[-12:].mean()  # 2 % of 600
    assert common.shift(query, before) == pytest.approx(expected, abs=1e-6)


def test_only_rows_that_are_the_same_count(tmp_path):
    new, old = unit(40, 4, 0), unit(40, 4, 1)
    common = CommonRows.of(
        written(tmp_path / "new", range(40), new), written(tmp_path / "old", range(30, 70), old)
    )
    assert np.array_equal(common.newer, new[30:])
    assert np.array_equal(common.older, old[:10])


def test_of_no_rows_in_common_nothing_is_shifted(tmp_path):
    file = written(tmp_path / "new", range(5), unit(5, 4, 0))
    other = written(tmp_path / "old", range(10, 15), unit(5, 3, 1))
    common = CommonRows.of(file, other)
    assert (common.newer.shape, common.older.shape) == ((0, 4), (0, 3))
    assert common.shift(unit(1, 4, 0)[0], unit(1, 3, 0)[0]) == 0


def test_of_many_rows_some_are_taken_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(mixing, "ROWS_OF_BLOCK", 10)
    new = unit(1000, 4, 0)
    file = written(tmp_path / "new", range(1000), new)
    common = CommonRows.of(file, file)
    assert len(common.newer) == 80
    assert np.array_equal(common.newer, common.older)
    assert np.array_equal(common.newer[:10], new[:10])
    assert np.array_equal(common.newer[-10:], new[-10:])


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    file = written(tmp_path / "new", range(5), unit(5, 4, 0))
    (tmp_path / "old").write_bytes(b"no parquet")
    with pytest.raises(StoreError, match="old"):
        CommonRows.of(file, tmp_path / "old")
