"""Training batches at 224 pixels: read by offset from tars, beside what others read them by.

Ours by both ways of `Pixels`, and from decoded images that were kept; torchvision's ImageFolder;
and the pipeline of webdataset that open_clip trains with. All decode the same JPEGs (crops of
scikit-image's photographs), crop as RandomResizedCrop does (bicubic, antialiased) and normalise;
ours and open_clip's also tokenise the captions, and ours draws from a mixture. Worker processes are
started and warm; passes alternate.

    python benchmarks/loading.py [--images 400] [--batch 64] [--workers 0 2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import io
import statistics
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import torch
import webdataset as wds
from pictures import print_figures, samples_per_second
from PIL import Image
from skimage import data
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from fomo_dagster.data.batches import Batches
from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.decoded_cache import DecodedCache
from fomo_dagster.data.decoders import DECODE
from fomo_dagster.data.index import Index
from fomo_dagster.data.mixture import StepSizes
from fomo_dagster.data.pixel_rules import Pixels
from fomo_dagster.data.pools import ManifestPool
from fomo_dagster.data.reading import Reading
from fomo_dagster.data.shards import write_shards
from fomo_dagster.data.sources.source import Inspection
from fomo_dagster.data.transforms import augment, normalise
from fomo_dagster.streams.entries import format_entry
from fomo_dagster.streams.manifests import TrainingSamples, chunk_manifest, with_prompts
from fomo_dagster.training.allocator import keep_freed_memory

MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
CONCEPTS, TARS = 10, 4
SIZES = {"500 × 375": (500, 375), "short side 256": (341, 256)}
PEER = "ImageFolder"

Contender = Callable[[Path, int, int, int], Iterator[object]]
"""From a folder, samples of a batch, batches and worker processes to the batches."""


def write_photographs(root: Path, images: int, size: tuple[int, int]) -> None:
    """`images/<split>/<concept>/<number>.jpg`, and the training images as tars, `tars/<n>.tar`."""
    photographs = [Image.fromarray(of()) for of in (data.astronaut, data.chelsea, data.coffee)]
    drawn = np.random.default_rng(0)
    (root / "tars").mkdir()
    tars: list[list[tuple[str, bytes]]] = [[] for _ in range(TARS)]
    for number in range(images + CONCEPTS):
        photograph = photographs[number % len(photographs)]
        width = int(drawn.uniform(0.6, 0.8) * min(photograph.width, photograph.height * 4 / 3))
        height = width * 3 // 4
        left = int(drawn.integers(photograph.width - width + 1))
        top = int(drawn.integers(photograph.height - height + 1))
        crop = photograph.crop((left, top, left + width, top + height))
        file = io.BytesIO()
        crop.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        split = "train" if number < images else "test"
        place = root / "images" / split / f"concept_{number % CONCEPTS}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.jpg").write_bytes(file.getvalue())
        if split == "train":
            name, caption = f"{number:06d}", b"a photo of a concept"
            tars[number % TARS] += [(f"{name}.jpg", file.getvalue()), (f"{name}.txt", caption)]
    for number, members in enumerate(tars):
        with tarfile.open(root / "tars" / f"{number}.tar", "w") as tar:
            for name, content in members:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def our_batches(
    root: Path, batch: int, steps: int, workers: int, *, pixels: Pixels, kept: bool = False
) -> Iterator[object]:
    """Batches of the update pool alone. kept: with decoded images that were kept before."""
    index = Index(root / "shards")
    if kept:
        index = index.keeping(DecodedCache(root / "decoded", "pictures", 2**34))
        for place in index.samples.select("shard", "offset", "size").iter_rows():
            index.decoded(*place, DECODE[pixels])
    samples = TrainingSamples("pictures", index.sample_table)
    entries = [format_entry("pictures", concept) for concept in samples.concepts]
    manifest = chunk_manifest(entries, {"pictures": samples})
    manifest = with_prompts(manifest, {"pictures": "a photo of a {}"})
    batches = Batches(
        {"update": ManifestPool("update", manifest, {"pictures": index}, DECODE[pixels])},
        StepSizes.constant({"update": batch}, steps),
        seed=0, stage=1,
        transform=partial(augment, size=224, crop_scale=(0.9, 1.0), pixels=pixels),
        tokenize=open_clip.get_tokenizer("ViT-B-32"),
        workers=workers,
    )  # fmt: skip
    for made in batches.iterate(0):
        yield normalise(made.images, MEAN, STD)


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


def open_clip_batches(root: Path, batch: int, steps: int, workers: int) -> Iterator[object]:
    """As `open_clip_train.data.get_wds_dataset`, without its shuffling."""
    transform = open_clip.image_transform(224, is_train=True, mean=MEAN, std=STD)
    tokenize = open_clip.get_tokenizer("ViT-B-32")
    urls = [str(path) for path in sorted((root / "tars").glob("*.tar"))]
    pipeline = wds.DataPipeline(
        wds.ResampledShards(urls),
        wds.tarfile_to_samples(),
        wds.decode("pilrgb"),
        wds.rename(image="jpg;png;jpeg;webp", text="txt"),
        wds.map_dict(image=transform, text=lambda text: tokenize(text)[0]),
        wds.to_tuple("image", "text"),
        wds.batched(batch, partial=False),
    ).with_epoch(-(-steps // max(1, workers)))
    return iter(wds.WebLoader(pipeline, batch_size=None, shuffle=False, num_workers=workers))


CONTENDERS: dict[str, Contender] = {
    "ours": partial(our_batches, pixels=Pixels.TORCH),
    "ours, kept decoded": partial(our_batches, pixels=Pixels.TORCH, kept=True),
    "ours by Pillow": partial(our_batches, pixels=Pixels.PILLOW),
    PEER: torchvision_batches,
    "open_clip": open_clip_batches,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=[*SIZES])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as a training on the CPU does; it serves all
    rows = []
    for name in arguments.sizes:
        with tempfile.TemporaryDirectory() as temporary:
            root = Path(temporary)
            write_photographs(root, arguments.images, SIZES[name])
            declared = {"source": {"type": "folder", "path": str(root / "images")}}
            source = Dataset.model_validate(declared).open("pictures", root, root / "cache")
            write_shards(
                Inspection(source.scan()), Reading(source), root / "shards", unreadable_limit=0
            )  # fmt: skip
            for workers in arguments.workers:
                speeds: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
                for _ in range(arguments.rounds):
                    for contender, make in CONTENDERS.items():
                        batches = make(root, arguments.batch, arguments.steps, workers)
                        speeds[contender].append(samples_per_second(batches, arguments.batch))
                for contender, found in speeds.items():
                    ratios = [a / b for a, b in zip(found, speeds[PEER], strict=True)]
                    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
                    ratio = statistics.median(ratios)
                    rows.append((name, workers, contender, statistics.median(found), ratio, spread))
    columns = ("images", "workers", "loader", "images/s", f"over {PEER}'s", "spread")
    print_figures(f"Batches of {arguments.batch} at 224 px", columns, rows)


if __name__ == "__main__":
    main()
