"""Training batches at 224 pixels: read by offset from tars, against torchvision's ImageFolder.

Both decode the same JPEGs, crop as RandomResizedCrop does (bicubic, antialiased) and normalise;
ours also tokenises the captions and draws from a mixture. Worker processes are started and warm.

    python benchmarks/loading.py [--images 1000] [--pixels 400] [--batch 64] [--workers 0 1 2]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import open_clip
import torch
from pictures import print_figures, samples_per_second, write_pictures
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from fomo_dagster.data.batches import Batches
from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.index import Index
from fomo_dagster.data.mixture import StepSizes
from fomo_dagster.data.pools import ManifestPool
from fomo_dagster.data.reading import Reading
from fomo_dagster.data.shards import write_shards
from fomo_dagster.data.sources.source import Inspection
from fomo_dagster.data.transforms import augment, normalise
from fomo_dagster.streams.entries import format_entry
from fomo_dagster.streams.manifests import TrainingSamples, chunk_manifest, with_prompts

MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
CONCEPTS = 10


def our_batches(root: Path, batch: int, steps: int, workers: int) -> Iterator[object]:
    """Batches of the update pool alone."""
    index = Index(root / "shards")
    samples = TrainingSamples("pictures", index.sample_table)
    entries = [format_entry("pictures", concept) for concept in samples.concepts]
    manifest = chunk_manifest(entries, {"pictures": samples})
    manifest = with_prompts(manifest, {"pictures": "a photo of a {}"})
    batches = Batches(
        {"update": ManifestPool("update", manifest, {"pictures": index})},
        StepSizes.constant({"update": batch}, steps),
        seed=0, stage=1,
        transform=partial(augment, size=224, crop_scale=(0.9, 1.0)),
        tokenize=open_clip.get_tokenizer("ViT-B-32"),
        workers=workers,
    )  # fmt: skip
    for batch in batches.iterate(0):
        yield normalise(batch.images, MEAN, STD)


def torchvision_batches(root: Path, batch: int, steps: int, workers: int) -> Iterator[object]:
    """What a torchvision user would write."""
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(224, (0.9, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    dataset = ImageFolder(str(root / "images" / "train"), transform)
    sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=steps * batch)
    return iter(DataLoader(dataset, batch, sampler=sampler, num_workers=workers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--pixels", type=int, default=400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_pictures(
            root / "images", concepts=CONCEPTS, train=arguments.images // CONCEPTS, test=1,
            pixels=arguments.pixels,
        )  # fmt: skip
        declared = {"source": {"type": "folder", "path": str(root / "images")}}
        source = Dataset.model_validate(declared).open("pictures", root, root / "cache")
        write_shards(
            Inspection(source.scan()), Reading(source), root / "shards", unreadable_limit=0
        )  # fmt: skip
        for workers in arguments.workers:
            ours, theirs = (
                samples_per_second(
                    make(root, arguments.batch, arguments.steps, workers), arguments.batch
                )
                for make in (our_batches, torchvision_batches)
            )
            rows.append((workers, ours, theirs, ours / theirs))
    columns = ("workers", "ours images/s", "ImageFolder images/s", "ours / theirs")
    print_figures(f"Batches of {arguments.batch} at 224 px", columns, rows)


if __name__ == "__main__":
    main()
