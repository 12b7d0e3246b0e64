"""An index finds most of what an exact search finds, and says how much that is."""

import builtins

import numpy as np
import pytest

from fomo_dagster.errors import InputError
from fomo_dagster.galleries.declaration import Hnsw
from fomo_dagster.galleries.files import EmbeddingsReader, EmbeddingsWriter
from fomo_dagster.galleries.hnsw import IndexReader, build_index
from fomo_dagster.galleries.searching import FOUND, nearest_rows, rows_at
from fomo_dagster.progress import no_progress
from tests.galleries.test_files import rows

POOR = Hnsw(type="hnsw", m=2, ef_construction=1, ef_search=1)
GOOD = Hnsw(type="hnsw", m=32, ef_construction=200, ef_search=200)


@pytest.fixture(scope="module")
def vectors():
    found = np.random.default_rng(0).normal(size=(2000, 24))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def written(path, vectors):
    with EmbeddingsWriter(path) as writer:
        writer.add(rows(range(len(vectors))), vectors)
    return EmbeddingsReader(path)


def recall_by_hand(index, vectors, queries):
    shares = []
    for own in queries:
        similarities = vectors.astype(np.float64) @ vectors[own]
        similarities[own] = -2
        exact = set(np.argsort(-similarities)[:10].tolist())
        places, _ = index.nearest(vectors[own], 11)
        found = [place for place in places.tolist() if place != own][:10]
        shares.append(len(exact.intersection(found)) / 10)
    return 100 * np.mean(shares)


@pytest.mark.parametrize(("settings", "least", "most"), [(GOOD, 99, 100), (POOR, 0, 80)])
def test_recall_is_the_share_of_the_nearest_that_is_found(tmp_path, vectors, settings, least, most):
    embeddings = written(tmp_path / "file", vectors)
    recall = build_index(embeddings, settings, tmp_path / "index", no_progress)
    assert least <= recall.recall <= most
    assert recall.queries == 1000
    own = np.linspace(0, 1999, 1000).round().astype(int)
    index = IndexReader(tmp_path / "index")
    assert recall.recall == pytest.approx(recall_by_hand(index, vectors, own), abs=1)


def test_an_index_has_the_same_bytes_each_time(tmp_path, vectors):
    embeddings = written(tmp_path / "file", vectors)
    for name in ("first", "second"):
        build_index(embeddings, GOOD, tmp_path / name, no_progress)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_what_an_index_finds_is_what_an_exact_search_gives(tmp_path, vectors):
    embeddings = written(tmp_path / "file", vectors)
    build_index(embeddings, GOOD, tmp_path / "index", no_progress)
    places, similarities = IndexReader(tmp_path / "index").nearest(vectors[5], 7)
    found = rows_at(tmp_path / "file", places.tolist(), similarities.tolist())
    exact = nearest_rows(tmp_path / "file", vectors[5], 7)
    assert dict(found.schema) == FOUND
    assert found.drop("similarity").equals(exact.drop("similarity"))
    difference = found["similarity"].to_numpy() - exact["similarity"].to_numpy()
    assert np.abs(difference).max() < 1e-6
    assert rows_at(tmp_path / "file", [], []).is_empty()


def test_an_index_can_be_asked_for_later_rows_alone(tmp_path, vectors):
    embeddings = written(tmp_path / "file", vectors)
    build_index(embeddings, GOOD, tmp_path / "index", no_progress)
    places, _ = IndexReader(tmp_path / "index").nearest(vectors[5], 7, start=1500)
    similarities = vectors[1500:] @ vectors[5]
    assert places.tolist() == (1500 + np.argsort(-similarities)[:7]).tolist()
    assert IndexReader(tmp_path / "index").nearest(vectors[5], 7, start=2000)[0].size == 0
    places, _ = IndexReader(tmp_path / "index").nearest(vectors[5], 500, start=1500)
    assert sorted(places.tolist()) == list(range(1500, 2000))
    assert embeddings.last == ("train", "01999")
    assert embeddings.count_until("train", "01499") == 1500
    assert embeddings.count_until("train", "01499x") == 1500
    assert embeddings.count_until("test", "99999") == 0


def test_equal_embeddings_count_as_found_whichever_it_is(tmp_path, vectors):
    embeddings = written(tmp_path / "file", np.tile(vectors[:5], (40, 1)))
    assert build_index(embeddings, GOOD, tmp_path / "index", no_progress).recall == 100


def test_an_index_of_few_rows_finds_all_of_them(tmp_path, vectors):
    embeddings = written(tmp_path / "file", vectors[:3])
    recall = build_index(embeddings, GOOD, tmp_path / "index", no_progress)
    assert (recall.recall, recall.queries) == (100, 3)
    places, _ = IndexReader(tmp_path / "index").nearest(vectors[1], 10)
    assert sorted(places.tolist()) == [0, 1, 2]
    one = written(tmp_path / "one", vectors[:1])
    assert build_index(one, GOOD, tmp_path / "alone", no_progress).recall is None


def test_without_faiss_the_way_out_is_said(tmp_path, vectors, monkeypatch):
    embeddings = written(tmp_path / "file", vectors[:3])
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == "faiss":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'fomo-dagster\[search\]', or leave out"):
        build_index(embeddings, GOOD, tmp_path / "index", no_progress)
