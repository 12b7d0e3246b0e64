"""How long an exact search of a gallery takes and an index of it, and how much the index finds.

    python benchmarks/galleries.py --rows 100000 --dimensions 512

Embeddings are drawn around random centres, with `--spread` as the length of what is added to a
centre of length 1. Real ones have such clusters; how much an index finds depends on them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
from pictures import peak_memory, print_figures

from fomo_dagster.galleries.declaration import Hnsw
from fomo_dagster.galleries.files import EmbeddingsReader, EmbeddingsWriter, Floats
from fomo_dagster.galleries.groups import groups_of
from fomo_dagster.galleries.hnsw import IndexReader, build_index
from fomo_dagster.galleries.searching import nearest_rows, rows_at
from fomo_dagster.progress import no_progress

PART = 10_000  # rows that are drawn at a time


def drawn(rows: int, dimensions: int, centres: int, spread: float) -> Iterator[Floats]:
    """Embeddings of length 1, (PART, D) at a time."""
    generator = np.random.default_rng(0)
    middle = generator.normal(size=(centres, dimensions)) / np.sqrt(dimensions)
    for start in range(0, rows, PART):
        count = min(PART, rows - start)
        noise = generator.normal(size=(count, dimensions)) / np.sqrt(dimensions)
        found = middle[generator.integers(centres, size=count)] + spread * noise
        yield (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def samples(start: int, count: int) -> pl.DataFrame:
    numbers = range(start, start + count)
    return pl.DataFrame(
        {
            "split": ["train"] * count, "key": [f"{number:09d}.jpg" for number in numbers],
            "concept": ["photo"] * count, "digest": [f"{number:032x}" for number in numbers],
            "text": [f"a photo of number {number}" for number in numbers],
        }
    )  # fmt: skip


def seconds(work: Callable[[], object], times: int) -> float:
    """The median of several times."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--centres", type=int, default=1000)
    parser.add_argument("--spread", type=float, default=1.0)
    parser.add_argument("--without-index", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file, index = Path(folder) / "embeddings.parquet", Path(folder) / "index.faiss"
        began = time.perf_counter()
        with EmbeddingsWriter(file) as writer:
            start = 0
            for part in drawn(asked.rows, asked.dimensions, asked.centres, asked.spread):
                writer.add(samples(start, len(part)), part)
                start += len(part)
        figures: dict[str, object] = {"written (s)": time.perf_counter() - began}
        figures["file (MiB)"] = file.stat().st_size / 2**20
        embeddings = EmbeddingsReader(file)
        query = embeddings.read(asked.rows // 3, 1)[0]
        whole = pl.read_parquet(file, columns=["split", "key", "digest"])
        figures["cut into groups (s)"] = seconds(lambda: groups_of(whole), 1)
        figures["exact search (s)"] = seconds(lambda: nearest_rows(file, query, 10), 5)
        figures["memory so far (MiB)"] = peak_memory()
        if not asked.without_index:
            began = time.perf_counter()
            recall = build_index(embeddings, Hnsw(type="hnsw"), index, no_progress)
            figures["index built and measured (s)"] = time.perf_counter() - began
            figures["index (MiB)"] = index.stat().st_size / 2**20
            figures["recall@10 (%)"] = recall.recall
            figures["index opened (s)"] = seconds(lambda: IndexReader(index), 3)
            reader = IndexReader(index)
            figures["search by index (ms)"] = 1000 * seconds(lambda: reader.nearest(query, 10), 50)
            places, similarities = reader.nearest(query, 10)
            rows = lambda: rows_at(file, places.tolist(), similarities.tolist())  # noqa: E731
            figures["its rows (s)"] = seconds(rows, 5)
    print_figures("gallery", ("figure", "value"), list(figures.items()))


if __name__ == "__main__":
    main()
