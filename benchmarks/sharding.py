"""Sharding a folder of JPEGs: images and megabytes a second by number of processes.

Every image is read, decoded once to see that it is whole, and stored. Each row is a process of its
own; its seconds begin when all imports are done, but include starting the worker processes. Peak
memory is that of the process that writes; its workers are not its children and not counted.

    python benchmarks/sharding.py [--images 2000] [--pixels 400] [--workers 1 2]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from pictures import peak_memory, print_figures, write_pictures

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.reading import Reading
from fomo_dagster.data.shards import write_shards
from fomo_dagster.data.sources.source import Inspection

CONCEPTS = 20


def measure(root: Path, workers: int) -> tuple[float, float, float, float]:
    """Seconds to scan, to shard, stored megabytes, and this process's peak MiB."""
    dataset = Dataset.model_validate({"source": {"type": "folder", "path": str(root / "images")}})
    source = dataset.open("pictures", root, root / f"cache{workers}")
    started = time.perf_counter()
    scan = source.scan()
    scanned = time.perf_counter()
    report = write_shards(
        Inspection(scan), Reading(source), root / f"shards{workers}",
        unreadable_limit=0, workers=workers,
    )  # fmt: skip
    sharded = time.perf_counter() - scanned
    return scanned - started, sharded, report.bytes / 1e6, peak_memory()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--pixels", type=int, default=400)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    arguments = parser.parse_args()
    per_concept = arguments.images // CONCEPTS
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_pictures(
            root / "images", concepts=CONCEPTS, train=per_concept - 1, test=1,
            pixels=arguments.pixels,
        )  # fmt: skip
        spawn = multiprocessing.get_context("spawn")
        for workers in dict.fromkeys(arguments.workers):
            # Not a Pool, whose processes may have no processes of their own.
            with ProcessPoolExecutor(1, spawn) as process:
                found = process.submit(measure, root, workers).result()
            scan, shard, megabytes, memory = found
            images = per_concept * CONCEPTS
            rows.append((workers, scan, shard, images / shard, megabytes / shard, memory))
    columns = ("processes", "scan s", "shard s", "images/s", "MB/s", "peak MiB")
    print_figures(f"{arguments.images} JPEGs of {arguments.pixels} px", columns, rows)


if __name__ == "__main__":
    main()
