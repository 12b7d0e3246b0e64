"""What the benchmarks share: synthetic pictures, a small CLIP, a clock, and tables of figures."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image
from rich.console import Console

from fomo_dagster.cli.rows import print_frame

WARM_BATCHES = 3  # before the clock starts
SMALL_CLIP = {
    "embed_dim": 128,
    "vision_cfg": {
        "image_size": 64, "layers": 4, "width": 128, "head_width": 32, "patch_size": 8,
    },
    "text_cfg": {
        "context_length": 32, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 4,
    },
}  # fmt: skip


def write_pictures(
    folder: Path,
    *,
    concepts: int,
    train: int,
    test: int,
    pixels: int,
    suffix: str = ".jpg",
    seed: int = 0,
) -> int:
    """Write `folder/<split>/<concept>/<number><suffix>`, smooth noise of `pixels` square: it is
    about as hard to decode as a photograph. Returns their bytes."""
    rng = np.random.default_rng(seed)
    written = 0
    for concept in range(concepts):
        colour = rng.integers(0, 256, (1, 1, 3))
        for split, count in (("train", train), ("test", test)):
            place = folder / split / f"concept_{concept:04d}"
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                cells = max(2, pixels // 4)
                noise = rng.integers(0, 256, (cells, cells, 3))
                coarse = ((noise + 2 * colour) // 3).astype(np.uint8)
                image = Image.fromarray(coarse).resize((pixels, pixels), Image.Resampling.BICUBIC)
                path = place / f"{number}{suffix}"
                image.save(path, quality=90)
                written += path.stat().st_size
    return written


def print_figures(title: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
    """A table on the terminal."""
    frame = pl.DataFrame(rows, schema=list(columns), orient="row")
    print_frame(frame, title, Console(highlight=False, width=120))


def peak_memory() -> float:
    """The most memory that this process held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def samples_per_second(batches: Iterator[object], batch: int) -> float:
    """How fast batches of `batch` samples come, once the first few have."""
    for _ in range(WARM_BATCHES):
        next(batches)
    started = time.perf_counter()
    count = sum(batch for _ in batches)
    return count / (time.perf_counter() - started)
