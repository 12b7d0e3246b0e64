"""Exact search against a plain product in double precision."""

import numpy as np
import pytest

from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.galleries.files import EmbeddingsWriter, write_empty
from fomo_dagster.galleries.searching import FOUND, nearest_rows
from tests.galleries.test_files import SIZE, embeddings, rows


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a [b] *" / "file.parquet"  # no pattern
    path.parent.mkdir()
    whole = rows(range(300))
    with EmbeddingsWriter(path) as writer:
        writer.add(whole, embeddings(whole))
    return path


def test_the_nearest_are_those_of_a_plain_product(file):
    vectors = embeddings(rows(range(300))).astype(np.float64)
    query = np.random.default_rng(1).normal(size=SIZE).astype(np.float32)
    query /= np.linalg.norm(query)
    expected = vectors @ query.astype(np.float64)
    order = np.argsort(-expected)[:20]
    found = nearest_rows(file, query, 20)
    assert dict(found.schema) == FOUND
    assert found["rank"].to_list() == list(range(1, 21))
    assert found["key"].to_list() == [f"{number:05d}" for number in order]
    assert np.abs(found["similarity"].to_numpy() - expected[order]).max() < 1e-6
    assert found["text"][0] == (None if order[0] % 2 else f"text {order[0]}")


def test_equal_ones_are_in_the_order_of_their_keys(tmp_path):
    whole, path = rows(range(40)), tmp_path / "file"
    with EmbeddingsWriter(path) as writer:
        writer.add(whole, np.tile(embeddings(rows([7])), (40, 1)))
    found = nearest_rows(path, embeddings(rows([7]))[0], 5)
    assert found["key"].to_list() == [f"{number:05d}" for number in range(5)]


def test_a_query_of_another_size_is_refused(file):
    with pytest.raises(InputError, match=r"the query has 4 numbers, and the embeddings .* have 6"):
        nearest_rows(file, np.ones(4, dtype=np.float32) / 2, 3)


def test_nothing_is_found_in_a_gallery_of_nothing(tmp_path):
    write_empty(tmp_path / "empty")
    assert nearest_rows(tmp_path / "empty", np.ones(4, dtype=np.float32) / 2, 3).is_empty()


def test_a_damaged_file_is_named(file):
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(StoreError, match=r"file\.parquet cannot be read"):
        nearest_rows(file, np.ones(SIZE, dtype=np.float32), 3)
