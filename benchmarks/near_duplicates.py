"""How well perceptual hashes, and a model's features, find pictures that were changed, and how
often they take different pictures for the same; and how long it takes to hold many hashes against
many.

    python benchmarks/near_duplicates.py --pictures /usr/share/tuxpaint/stamps
    python benchmarks/near_duplicates.py --pictures FOLDER --weights model.safetensors
    python benchmarks/near_duplicates.py --datasets datasets/quickstart.yaml
    python benchmarks/near_duplicates.py --matching 100000

Recall: of pictures that were changed, how many are within so many bits of what they were, or have
that cosine to it. False: of the pictures as they are, how many have another so near, which grows
with their number; and of a million pairs, how many. A folder may be that of Debian's
tuxpaint-stamps-default; weights are what `fomo export` writes, with their configuration beside.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import imagehash
import numpy as np
import yaml
from pictures import peak_memory, print_figures
from PIL import Image, ImageEnhance

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.images import decoded
from fomo_dagster.data.near_duplicates import NONE, nearest
from fomo_dagster.data.perceptual_hashes import hashes_of
from fomo_dagster.data.sources.source import listing
from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.models.backbones import load

DISTANCES = (0, 2, 4, 6, 8, 10, 12, 16)
COSINES = (0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995)
Change = Callable[[Image.Image], Image.Image]


def cropped(share: float, place: float) -> Change:
    """Keep a share of each side. place: of what is cut, how much at the left and the top."""

    def change(picture: Image.Image) -> Image.Image:
        width, height = (max(1, round(side * share)) for side in picture.size)
        left = round((picture.width - width) * place)
        upper = round((picture.height - height) * place)
        return picture.crop((left, upper, left + width, upper + height))

    return change


def compressed(quality: int) -> Change:
    def change(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return change


def scaled(share: float) -> Change:
    def change(picture: Image.Image) -> Image.Image:
        size = (max(1, round(side * share)) for side in picture.size)
        return picture.resize(tuple(size), Image.Resampling.BICUBIC)

    return change


def brightened(factor: float) -> Change:
    return lambda picture: ImageEnhance.Brightness(picture).enhance(factor)


CHANGES: Mapping[str, Change] = {
    **{f"JPEG {quality}": compressed(quality) for quality in (90, 70, 50, 30)},
    **{f"size {share:.0%}": scaled(share) for share in (0.5, 0.25, 2.0)},
    **{f"brightness {factor:g}": brightened(factor) for factor in (0.7, 1.3)},
    "crop 95 %, middle": cropped(0.95, 0.5),
    "crop 90 %, middle": cropped(0.9, 0.5),
    "crop 90 %, corner": cropped(0.9, 0.0),
    "crop 80 %, middle": cropped(0.8, 0.5),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def bits_of(found: imagehash.ImageHash) -> int:
    return int.from_bytes(np.packbits(found.hash).tobytes(), "big")


HASHES: Mapping[str, Callable[[Image.Image], int]] = {
    "phash": lambda picture: hashes_of(picture)[0],
    "dhash": lambda picture: bits_of(imagehash.dhash(picture)),
    "average": lambda picture: bits_of(imagehash.average_hash(picture)),
    "wavelet": lambda picture: bits_of(imagehash.whash(picture)),
}


def of_folder(folder: Path) -> Iterator[Image.Image]:
    """Its pictures, without those whose names say that they are another one's mirror image."""
    for path in sorted(folder.glob("**/*")):
        if path.suffix in (".jpg", ".png") and "_mirror" not in path.stem:
            yield decoded(path.read_bytes())


def hashes_of_datasets(file: Path, cache: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each dataset that a file declares, with the hashes of its training and its test images."""
    for name, declared in yaml.safe_load(file.read_text()).items():
        source = Dataset.model_validate(declared).open(name, file.parent, cache)
        splits = {"train": [], "test": []}
        for split, reference in listing(source).scan.select("split", "reference").iter_rows():
            splits[split].append(decoded(source.read(reference)))
        yield name, *(hashed(HASHES["phash"], pictures) for pictures in splits.values())


def share(distances: np.ndarray, most: int) -> str:
    return f"{(distances <= most).mean():.1%}"


def bits_apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.bitwise_count(one ^ other)


def neighbours(hashes: np.ndarray) -> np.ndarray:
    """How far each of (N,) is from the nearest of the others."""
    both = [nearest(order, order, max(DISTANCES), first=0)[1] for order in (hashes, hashes[::-1])]
    return np.minimum(both[0], both[1][::-1])


def pairs_per_million(hashes: np.ndarray) -> list[str]:
    """Of all pairs, how many are within each of `DISTANCES`."""
    apart = bits_apart(hashes[:, None], hashes)[np.triu_indices(len(hashes), 1)]
    return [f"{1e6 * (apart <= most).mean():.1f}" for most in DISTANCES]


def hashed(of: Callable[[Image.Image], int], pictures: list[Image.Image]) -> np.ndarray:
    return np.array([of(picture) for picture in pictures], np.uint64)


def print_hashes(pictures: list[Image.Image], names: list[str]) -> None:
    columns = ["", *(f"<= {most}" for most in DISTANCES)]
    for name in names:
        of = HASHES[name]
        before = hashed(of, pictures)
        rows = []
        for change, altered in CHANGES.items():
            apart = bits_apart(before, hashed(of, [altered(picture) for picture in pictures]))
            rows.append((change, *(share(apart, most) for most in DISTANCES)))
        apart = neighbours(before)
        rows.append(("false", *(share(apart, most) for most in DISTANCES)))
        rows.append(("false, per million pairs", *pairs_per_million(before)))
        print_figures(f"{name}, {len(pictures)} pictures", columns, rows)


def print_features(pictures: list[Image.Image], weights: Path) -> None:
    """As `print_hashes`, by cosines."""
    architecture = json.loads(weights.with_suffix(".json").read_text())
    encoder = Encoder(
        model=load(architecture, weights), batch_size=1, precision="fp32", device="cpu"
    )

    def features(of: Iterable[Image.Image]) -> np.ndarray:
        return np.stack([encoder.picture(one.convert("RGB"), "a picture").numpy() for one in of])

    def found(cosines: np.ndarray) -> list[str]:
        return [f"{(cosines >= least).mean():.1%}" for least in COSINES]

    before = features(pictures)
    rows = [
        (change, *found((before * features(map(altered, pictures))).sum(axis=1)))
        for change, altered in CHANGES.items()
    ]
    cosines = before @ before.T
    pairs = cosines[np.triu_indices(len(cosines), 1)]
    np.fill_diagonal(cosines, -1)
    rows.append(("false", *found(cosines.max(axis=1))))
    per_million = [f"{1e6 * (pairs >= least).mean():.1f}" for least in COSINES]
    rows.append(("false, per million pairs", *per_million))
    columns = ["", *(f">= {least:g}" for least in COSINES)]
    print_figures(f"features, {len(pictures)} pictures", columns, rows)


def print_datasets(file: Path, cache: Path) -> None:
    most, rows = max(DISTANCES), []
    for name, train, test in hashes_of_datasets(file, cache):
        found = {"among themselves": neighbours(np.concatenate([train, test]))}
        if len(train) and len(test):
            found["training near test"] = nearest(train, test, most)[1]
        for what, apart in found.items():
            rows.append((name, what, len(apart), *(share(apart, most) for most in DISTANCES)))
    columns = ["dataset", "", "pictures", *(f"<= {most}" for most in DISTANCES)]
    print_figures("pictures that have another within so many bits", columns, rows)


def print_matching(count: int) -> None:
    random = np.random.default_rng(0)
    one, other = random.integers(0, 2**64, (2, count), np.uint64)
    held = peak_memory()
    started = time.perf_counter()
    _, distances = nearest(one, other, 6)
    seconds = time.perf_counter() - started
    row = (count, f"{seconds:.1f}", f"{peak_memory() - held:.0f}", int((distances != NONE).sum()))
    print_figures("hashes against as many", ["hashes", "seconds", "MiB more", "near"], [row])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, help="a folder of different pictures")
    parser.add_argument("--datasets", type=Path, help="a file that declares datasets")
    parser.add_argument("--matching", type=int, metavar="HASHES", help="how many against as many")
    parser.add_argument("--weights", type=Path, help="a model whose features are tried instead")
    parser.add_argument("--hashes", nargs="+", choices=HASHES, default=list(HASHES))
    parser.add_argument("--cache", type=Path, default=Path(".fomo/cache"))
    options = parser.parse_args()
    if options.pictures and options.weights:
        print_features(list(of_folder(options.pictures)), options.weights)
    elif options.pictures:
        print_hashes(list(of_folder(options.pictures)), options.hashes)
    if options.datasets:
        print_datasets(options.datasets, options.cache)
    if options.matching:
        print_matching(options.matching)
