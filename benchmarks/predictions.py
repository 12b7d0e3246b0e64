"""What predictions add to an evaluation of the benchmark's datasets: seconds and bytes.

    python benchmarks/predictions.py [--stages 20] [--share 0.1] [--images-per-second 100]

Each dataset with classes has as many of them and as many test images as the registry says, with
random features of 512 numbers that are nearer to their class. Ranks alone, which the scores need,
are timed against all that predictions need, with the file's writing. Encoding an image is taken to
need what `--images-per-second` says. `--share`: of the test images, as `evaluation.subset`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from fomo_dagster.data.benchmark.registry import benchmark_datasets
from fomo_dagster.evaluation.classification import classification_result
from fomo_dagster.evaluation.ranking import ranking
from fomo_dagster.tables.predictions import write_predictions

WIDTH, NOISE = 512, 0.33  # with which two in three are right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", type=int, default=20)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--images-per-second", type=float, default=100.0)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    images = written = right = 0
    alone = whole = 0.0
    with tempfile.TemporaryDirectory() as folder:
        known = benchmark_datasets().items()
        for name, dataset in ((n, d) for n, d in known if d.classes):
            count, classes = max(1, round(options.share * dataset.test)), dataset.classes
            embeddings = unit(random.normal(size=(classes, WIDTH)))
            targets = np.sort(random.integers(0, classes, count))  # as keys are
            features = unit(embeddings[targets] + NOISE * random.normal(size=(count, WIDTH)))
            concepts = [f"{name} class {number}" for number in range(classes)]
            frame = pl.DataFrame(
                {
                    "key": [
                        f"{concepts[t]}/{name}_{place:08d}.jpg" for place, t in enumerate(targets)
                    ],
                    "concept": [concepts[t] for t in targets],
                }
            )
            began = time.perf_counter()
            ranking(features, embeddings, targets, np.arange(classes))
            between = time.perf_counter()
            result = classification_result(name, frame, concepts, features, embeddings, 100.0)
            path = Path(folder) / "predictions.parquet"
            write_predictions(result.predictions, path)
            alone += between - began
            whole += time.perf_counter() - between
            written += path.stat().st_size
            images += count
            right += int((result.predictions["rank"] == 0).sum())
    encoding = images / options.images_per_second
    added = whole - alone
    print(f"{images} test images, {right / images:.0%} right")
    print(f"ranks {alone:.1f} s, with predictions {whole:.1f} s")
    print(f"encoding {encoding:.0f} s; predictions add {100 * added / (encoding + alone):.2f} %")
    print(
        f"{written / images:.1f} bytes an image; "
        f"{options.stages} stages {options.stages * written / 1e6:.0f} MB"
    )


def unit(rows: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """The rows, normalised."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    main()
