"""FoMo-in-Flux at full size without its images: scanning, indexing, streams, manifests and plans,
in random order, by year and by how often the captions of a pool name a concept.

Every dataset has the concepts and sample counts of the registry; captions and digests are made up,
and no image is read or stored. Real class lists are taken where FOMO_RELEASE holds them. Each part
runs in a process of its own.

    python benchmarks/full_benchmark.py [--stages 200] [--share 1.0] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import polars as pl
import yaml
from pictures import print_figures

from fomo_dagster.cli.planning import RunRequest, resolve_request
from fomo_dagster.data.benchmark.registry import BenchmarkDataset, benchmark_datasets
from fomo_dagster.data.index import INDEX_FILE
from fomo_dagster.data.samples import INDEX, SCAN
from fomo_dagster.data.shards import QUARANTINE, stored_samples
from fomo_dagster.data.sources.folder.source import FolderSource
from fomo_dagster.graph.core.keys import source_key
from fomo_dagster.graph.nodes.shards import QUARANTINE as QUARANTINE_FILE
from fomo_dagster.graph.nodes.shards import ShardsNode
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.observations import ScanObservation
from fomo_dagster.store.digests import digest_of


class SimulatedImages:
    """A source with a dataset's counts; `share` of them, for growth."""

    def __init__(self, dataset: BenchmarkDataset, share: float) -> None:
        self.dataset = dataset
        self.share = share

    def scan(self) -> pl.DataFrame:
        classes = self.dataset.classes or 1
        tables = []
        for split, count in (("train", self.dataset.train), ("test", self.dataset.test)):
            count = round(count * self.share)
            # Those without training samples are the last of the class list.
            brings = self.dataset.stream_concepts if split == "train" else classes
            count = max(count, brings) if count else 0
            tables.append(
                pl.select(number=pl.int_range(count))
                .with_columns(
                    split=pl.lit(split),
                    concept=pl.format("{} {}", pl.lit(self.dataset.folder),
                                      pl.col("number") % max(brings, 1)),
                )
                .with_columns(
                    key=pl.format("{}/{}.jpg", "concept", "number"),
                    captions=pl.concat_list(pl.format("a photo of a {}, number {}", "concept",
                                                      "number")),
                    digest=pl.format("{}{}", pl.lit(digest_of([self.dataset.name, split])[:24]),
                                     pl.col("number").cast(pl.String).str.zfill(8)),
                )
                .with_columns(reference=pl.col("digest"))
                .select(*SCAN)
            )  # fmt: skip
        return pl.concat(tables).sort("split", "key")

    def read(self, reference: str) -> bytes:
        raise AssertionError("a simulated dataset has no images")


def index_alone(node: ShardsNode, name: str, recipe: object, folder: Path, context: RunContext):  # type: ignore[no-untyped-def]
    """In the place of `ShardsNode.make`: the index, and no tars."""
    samples = stored_samples(context.observe(source_key(node.name)).of(ScanObservation).scan, None)
    places = samples.with_columns(
        shard=pl.lit("train-000000.tar"), offset=pl.int_range(pl.len()), size=pl.lit(1000)
    )
    places.cast({"offset": pl.Int64, "size": pl.Int64}).select(*INDEX).write_parquet(
        folder / INDEX_FILE
    )
    pl.DataFrame(schema=QUARANTINE).write_parquet(folder / QUARANTINE_FILE)
    return {"samples": samples.height, "bytes": 0}


def write_experiment(root: Path, stages: int, order: str) -> None:
    """The experiment in an order; the pool, of all training samples, is for `frequency` alone."""
    datasets = benchmark_datasets().values()
    adaptation = [d.name for d in datasets if d.role == "adaptation"]
    experiment = {
        "datasets": {
            d.name: {
                "source": {"type": "folder", "path": f"/nowhere/{d.name}"},
                "task": d.task, "prompt": d.prompt, "year": d.year,
            }
            for d in datasets
        },
        "backbone": {
            "name": "b32", "architecture": "ViT-B-32", "pretrained": "laion2b_s34b_b79k",
        },
        "stream": {
            "name": order, "datasets": adaptation, "order": order, "stages": stages,
        },
        "pretraining_pool": {"name": "web", "datasets": adaptation},
        "mixture": {"update": 0.5, "buffer": 0.5, "pretraining": 0},
        "evaluation": {"held_out": [d.name for d in datasets if d.role == "held_out"]},
    }  # fmt: skip
    (root / "experiments").mkdir(exist_ok=True, parents=True)
    (root / "experiments" / "full.yaml").write_text(yaml.safe_dump(experiment))


def of_kind(request: RunRequest, *kinds: str) -> Iterator[str]:
    return (node.key for node in request.nodes if node.kind in kinds)


def make(*kinds: str) -> str:
    request = resolve_request("full", [])
    context = RunContext(request.graph, request.home)
    count = 0
    for key in of_kind(request, *kinds):
        materialise(key, context)
        count += 1
    return f"{count} assets"


def plan() -> str:
    entries = resolve_request("full", []).plan()
    return f"{sum(e.status == 'hit' for e in entries)} hits of {len(entries)}"


PARTS: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("random", "plan, nothing there", plan),
    ("random", "scan and index", lambda: make("shards")),
    ("random", "order", lambda: make("order")),
    ("random", "chunk manifests", lambda: make("chunk")),
    ("random", "plan, data there", plan),
    ("time_incremental", "order", lambda: make("order")),
    ("time_incremental", "chunk manifests", lambda: make("chunk")),
    ("time_incremental", "plan, data there", plan),
    ("frequency", "pool", lambda: make("pool")),
    ("frequency", "plan, order unknown", plan),
    ("frequency", "order", lambda: make("order")),
    ("frequency", "plan, order known", plan),
)


def run(number: int, root: Path, share: float) -> tuple[str, str, str, float, float]:
    """A part's order and name, what it says, its seconds and its process's peak MiB."""
    os.environ |= {"FOMO_PROJECT": str(root), "FOMO_HOME": str(root / ".fomo")}
    registered = benchmark_datasets()
    order, part, function = PARTS[number]

    def simulated(source: FolderSource, name: str, *_: object, **__: object) -> SimulatedImages:
        return SimulatedImages(registered[name], share)

    with (
        mock.patch.object(FolderSource, "open", simulated),
        mock.patch.object(ShardsNode, "make", index_alone),
    ):
        started = time.perf_counter()
        said = function()
        seconds = time.perf_counter() - started
    return order, part, said, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stages", type=int, default=200)
    parser.add_argument("--share", type=float, default=1.0, help="Of every dataset's samples.")
    parser.add_argument("--folder", type=Path, help="A folder to keep; by default a temporary one.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary)
        rows = []
        for number, (order, _, _) in enumerate(PARTS):
            write_experiment(root, arguments.stages, order)
            with multiprocessing.get_context("spawn").Pool(1) as process:
                rows.append(process.apply(run, (number, root, arguments.share)))
            print(*rows[-1], flush=True)
    print_figures(
        f"FoMo-in-Flux, {arguments.stages} stages, {arguments.share:.0%} of the samples",
        ("order", "part", "made", "seconds", "peak MiB"), rows,
    )  # fmt: skip


if __name__ == "__main__":
    main()
