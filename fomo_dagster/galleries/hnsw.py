"""An index of a gallery's embeddings, by faiss: a graph in which a search goes from neighbour to
neighbour (HNSW, arXiv 1603.09320). It is approximate; how much it finds is measured.

The index holds the vectors too, in memory while it is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fomo_dagster.errors import InputError
from fomo_dagster.galleries.declaration import Hnsw
from fomo_dagster.galleries.files import EmbeddingsReader, Floats

ROWS_AT_ONCE = 8192  # added together, which decides the graph
DEPTH = 10  # of the recall
QUERIES = 1000  # rows of the gallery that recall is measured with, or all of fewer
_EQUAL = 1e-5  # similarities that differ by less are taken as the same

Progress = Callable[[str, int, int], None]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Recall:
    """How much of the exact answers an index finds. recall: in percent, of the `DEPTH` nearest (or
    all others, of fewer); None where there is nothing to find. queries: how many were tried."""

    recall: float | None
    queries: int


def build_index(
    embeddings: EmbeddingsReader, settings: Hnsw, path: Path, progress: Progress
) -> Recall:
    """Write the index of embeddings, and measure it. By one thread: several would build another
    graph each time."""
    faiss = _faiss()
    with _one_thread(faiss):
        index = faiss.IndexHNSWFlat(embeddings.dimensions, settings.m)
        index.hnsw.efConstruction = settings.ef_construction
        index.hnsw.efSearch = settings.ef_search
        for block, _ in _blocks(embeddings):
            index.add(block)
            progress("vectors", index.ntotal, embeddings.rows)
        faiss.write_index(index, str(path))
    return measured(index, embeddings, progress)


def measured(index: Any, embeddings: EmbeddingsReader, progress: Progress) -> Recall:
    """The recall of an index. Queries are rows of the gallery, evenly spread, and a row is no
    answer to itself."""
    count = min(QUERIES, embeddings.rows)
    depth = min(DEPTH, embeddings.rows - 1)
    if depth < 1:
        return Recall(None, 0)
    own = np.linspace(0, embeddings.rows - 1, count).round().astype(np.int64)  # (Q,)
    queries = np.concatenate([embeddings.read(int(place), 1) for place in own])  # (Q, D)
    best = np.full((count, depth), -np.inf, dtype=np.float32)
    for block, start in _blocks(embeddings):
        similarities = queries @ block.T  # (Q, B)
        inside = (own >= start) & (own < start + len(block))
        similarities[np.flatnonzero(inside), own[inside] - start] = -np.inf
        both = np.concatenate([best, similarities], axis=1)
        best = -np.partition(-both, depth - 1, axis=1)[:, :depth]
        progress("exact neighbours", start + len(block), embeddings.rows)
    least = best.min(axis=1) - _EQUAL  # (Q,); of equal ones, any is right
    found, places = _search(index, queries, depth + 1, index.hnsw.efSearch)
    right = (found >= least[:, None]) & (places != own[:, None])
    share = np.minimum(right.sum(axis=1), depth) / depth
    return Recall(float(100 * share.mean()), count)


class IndexReader:
    """An index, opened for searches."""

    def __init__(self, path: Path) -> None:
        faiss = _faiss()
        # Mapped, so that one search of a command reads what it comes by, and not all vectors.
        self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        self._least = self._index.hnsw.efSearch

    def nearest(self, query: Floats, top: int, start: int = 0) -> tuple[Places, Floats]:
        """Places of about the `top` rows nearest to a query, (D,), of length 1, the nearest first,
        and their similarities. start: only rows from this place on."""
        top = min(top, self._index.ntotal - start)
        if top < 1:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        similarities, places = _search(self._index, query[None], top, self._least, start)
        there = places[0] >= 0  # where the graph leads to fewer, the rest is -1
        return places[0][there], similarities[0][there]


def _search(
    index: Any, queries: Floats, top: int, least: int, start: int = 0
) -> tuple[Floats, Places]:
    """Similarities and places, (Q, top), from squared distances: vectors have length 1. least: how
    many candidates are looked at, if not more are asked for. start: the first place that counts."""
    faiss = _faiss()
    candidates = max(least, top)
    if start:  # of which as many more must be looked at as do not count
        candidates = -(-candidates * index.ntotal // (index.ntotal - start))
    settings = faiss.SearchParametersHNSW(efSearch=candidates)
    if start:
        settings.sel = faiss.IDSelectorRange(start, index.ntotal)
    distances, places = index.search(np.ascontiguousarray(queries), top, params=settings)
    return 1 - distances / 2, places


def _blocks(embeddings: EmbeddingsReader) -> Iterator[tuple[Floats, int]]:
    """Rows that are added together, and the place of the first."""
    for start in range(0, embeddings.rows, ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, embeddings.rows - start)
        yield np.ascontiguousarray(embeddings.read(start, count)), start


@contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            "an index of a gallery needs faiss: pip install 'fomo-dagster[search]', or leave out "
            "`index` and search exactly"
        ) from error
    return faiss
