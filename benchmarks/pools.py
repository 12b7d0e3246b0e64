"""Samples a second of a pretraining pool at 224 pixels: indexed, streamed, and read by webdataset.

All three decode the same JPEGs of the same synthetic tars, crop, and tokenise the captions. The
last is what open_clip's data.py builds: tars in a shuffled order, a shuffle buffer, pairs of image
and text. Indexing is timed by itself. Worker processes are started and warm.

    python benchmarks/pools.py [--shards 8] [--samples 1000] [--pixels 256] [--workers 0 2]
"""

from __future__ import annotations

import argparse
import io
import tarfile
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import open_clip
import polars as pl
import torch
import webdataset as wds
from pictures import print_figures, samples_per_second
from PIL import Image

from fomo_dagster.data.batches import Batches
from fomo_dagster.data.mixture import StepSizes
from fomo_dagster.data.pools import ManifestPool, Pool
from fomo_dagster.data.samples import MANIFEST
from fomo_dagster.data.sources.splits import SplitRule
from fomo_dagster.data.sources.webdataset.indexed import IndexedTars, PlacedIndex
from fomo_dagster.data.sources.webdataset.listing import list_shards
from fomo_dagster.data.sources.webdataset.shard_cache import ShardCache
from fomo_dagster.data.sources.webdataset.streamed import StreamedPool, Visits
from fomo_dagster.data.transforms import augment, normalise

MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
IMAGES = ("jpg",)
SCALE = (0.9, 1.0)


def write_tars(folder: Path, shards: int, samples: int, pixels: int) -> None:
    """Tars as img2dataset writes them, of smooth noise, about as hard to decode as photographs."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number in range(samples):
                small = rng.integers(0, 256, (pixels // 4, pixels // 4, 3), dtype=np.uint8)
                data = io.BytesIO()
                image = Image.fromarray(small).resize((pixels, pixels), Image.Resampling.BICUBIC)
                image.save(data, "JPEG", quality=85)
                key = f"{shard:05d}{number:04d}"
                for extension, content in (
                    ("jpg", data.getvalue()),
                    ("txt", f"a picture of noise, number {key}".encode()),
                    ("json", f'{{"key": "{key}", "caption": "a picture of noise"}}'.encode()),
                ):
                    member = tarfile.TarInfo(f"{key}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def indexed_pool(root: Path) -> tuple[Pool, list[float]]:
    """The pool, and the seconds of a first and of a second look at its tars."""
    seconds = []
    for _ in range(2):
        source = IndexedTars(
            ["tars"],
            root,
            IMAGES,
            concept="web",
            split_rule=SplitRule(None, 0),
            cache=root / "cache",
        )
        started = time.perf_counter()
        tars = source.tars()
        seconds.append(time.perf_counter() - started)
        time.sleep(2.5)  # a tar that was just written is not trusted to stay the same
    samples, *_ = source.index(tars)
    samples.write_parquet(root / "index.parquet")
    index = PlacedIndex(root, {tar.name: tar.place for tar in tars})
    manifest = samples.with_columns(dataset=pl.lit("web")).select(*MANIFEST)
    return ManifestPool("pretraining", manifest, {"web": index}), seconds


def our_batches(pool: Pool, batch: int, steps: int, workers: int) -> Iterator[object]:
    batches = Batches(
        {"pretraining": pool}, StepSizes.constant({"pretraining": batch}, steps), seed=0, stage=1,
        transform=partial(augment, size=224, crop_scale=SCALE),
        tokenize=open_clip.get_tokenizer("ViT-B-32"), workers=workers,
    )  # fmt: skip
    for made in batches.iterate(0):
        yield normalise(made.images, MEAN, STD)


def webdataset_batches(root: Path, batch: int, steps: int, workers: int) -> Iterator[object]:
    """open_clip's pipeline, with its shuffle buffer and transform."""
    transform = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(size=224, mean=MEAN, std=STD),
        is_train=True,
        aug_cfg={"scale": SCALE},
    )
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    tars = sorted(map(str, (root / "tars").glob("*.tar")))
    dataset = wds.DataPipeline(
        wds.ResampledShards(tars, deterministic=True),
        wds.tarfile_to_samples(),
        wds.shuffle(5000, initial=1000),
        wds.select(lambda sample: "txt" in sample and "jpg" in sample),
        wds.decode("pilrgb"),
        wds.rename(image="jpg", text="txt"),
        wds.map_dict(image=transform, text=lambda text: tokenizer(text)[0]),
        wds.to_tuple("image", "text"),
        wds.batched(batch, partial=False),
    )
    loader = wds.WebLoader(dataset, batch_size=None, shuffle=False, num_workers=workers)
    return islice(iter(loader), steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_tars(root / "tars", arguments.shards, arguments.samples, arguments.pixels)
        size = sum(path.stat().st_size for path in (root / "tars").iterdir())
        time.sleep(2.5)
        indexed, (first, second) = indexed_pool(root)
        print_figures(
            "Indexing in place",
            ("samples", "MB", "first look, s", "s a GB", "µs a sample", "second look, s"),
            [(arguments.shards * arguments.samples, size / 1e6, first, first / size * 1e9,
              first / arguments.shards / arguments.samples * 1e6, second)],
        )  # fmt: skip
        cache = ShardCache(root / "streamed", 1 << 40, IMAGES)
        streamed = StreamedPool("pretraining", list_shards(["tars"], root), Visits(1000, 4), cache)
        for workers in arguments.workers:
            sources = (
                our_batches(indexed, arguments.batch, arguments.steps, workers),
                our_batches(streamed, arguments.batch, arguments.steps, workers),
                webdataset_batches(root, arguments.batch, arguments.steps, workers),
            )
            rows.append((workers, *(samples_per_second(s, arguments.batch) for s in sources)))
    columns = ("workers", "indexed/s", "streamed/s", "webdataset/s")
    print_figures(f"Batches of {arguments.batch} at 224 px", columns, rows)


if __name__ == "__main__":
    main()
