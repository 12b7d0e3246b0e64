"""What predictions add to evaluations of the benchmark's datasets: seconds and bytes.

    python benchmarks/predictions.py [--stages 20] [--share 0.1] [--images-per-second 100]

Each dataset has as many classes and test images as the registry says, or 5 captions an image, with
random features of 512 numbers that are nearer to their own. Ranks alone, which the scores need, are
timed against all that predictions need, with the file's writing. Encoding an image, or 5 captions,
is taken to need what `--images-per-second` says. `--share`: of the test images, as
`evaluation.subset`. An experiment has an evaluation of θ₀ beside those of its `--stages`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from fomo_dagster.data.benchmark.registry import benchmark_datasets
from fomo_dagster.evaluation.classification import classification_result
from fomo_dagster.evaluation.ranking import ranking
from fomo_dagster.evaluation.ranking_both_ways import ranking_both_ways
from fomo_dagster.evaluation.results import EvaluationResult
from fomo_dagster.evaluation.retrieval import retrieval_result
from fomo_dagster.tables.predictions import write_predictions

WIDTH = 512
NOISE, CAPTION_NOISE = 0.33, 0.15  # with which two in three are right
CAPTIONS = 5  # of an image of a retrieval dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", type=int, default=20)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--images-per-second", type=float, default=100.0)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    datasets = benchmark_datasets()
    encoded = rows = written = right = 0
    alone = whole = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, dataset in datasets.items():
            count = max(1, round(options.share * dataset.test))
            if dataset.task == "retrieval":
                ranked, evaluated = retrieval(random, name, count)
                encoded += 2 * count
            else:
                assert dataset.classes is not None
                ranked, evaluated = classification(random, name, count, dataset.classes)
                encoded += count
            began = time.perf_counter()
            ranked()
            between = time.perf_counter()
            predictions = evaluated().predictions
            path = Path(folder) / "predictions.parquet"
            write_predictions(predictions, path)
            alone += between - began
            whole += time.perf_counter() - between
            written += path.stat().st_size
            rows += len(predictions)
            right += int((predictions["rank"] == 0).sum())
    encoding = encoded / options.images_per_second
    added = whole - alone
    evaluations = options.stages + 1
    print(f"{len(datasets)} datasets, {rows} queries, {right / rows:.0%} right")
    print(f"ranks {alone:.1f} s, with predictions {whole:.1f} s")
    print(f"encoding {encoding:.0f} s; predictions add {100 * added / (encoding + alone):.2f} %")
    print(
        f"{written / rows:.2f} bytes a query; θ₀ and {options.stages} stages "
        f"{evaluations * written / 1e6:.0f} MB"
    )


Work = tuple[Callable[[], object], Callable[[], EvaluationResult]]
"""What ranks alone, and what gives predictions too."""


def classification(random: np.random.Generator, name: str, count: int, classes: int) -> Work:
    embeddings = unit(random.normal(size=(classes, WIDTH)))
    targets = np.sort(random.integers(0, classes, count))  # as keys are
    features = unit(embeddings[targets] + NOISE * random.normal(size=(count, WIDTH)))
    concepts = [f"{name} class {number}" for number in range(classes)]
    keys = [f"{concepts[t]}/{name}_{place:08d}.jpg" for place, t in enumerate(targets)]
    frame = pl.DataFrame({"key": keys, "concept": [concepts[t] for t in targets]})
    return (
        lambda: ranking(features, embeddings, targets, np.arange(classes)),
        lambda: classification_result(name, frame, concepts, features, embeddings, 100.0),
    )


def retrieval(random: np.random.Generator, name: str, count: int) -> Work:
    features = unit(random.normal(size=(count, WIDTH)))
    owners = np.repeat(np.arange(count), CAPTIONS)
    noise = random.normal(size=(len(owners), WIDTH))
    captions = unit(features[owners] + CAPTION_NOISE * noise)
    keys = [f"{name}_{place:012d}.jpg" for place in range(count)]
    frame = pl.DataFrame(
        {"key": keys, "concept": [name] * count, "captions": [[""] * CAPTIONS] * count}
    )
    return (
        lambda: ranking_both_ways(features, captions, owners),
        lambda: retrieval_result(name, frame, features, captions),
    )


def unit(rows: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """The rows, normalised."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    main()
