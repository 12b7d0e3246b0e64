"""Recall of images among captions and of captions among images, at the size of MSCOCO's test split.

    python benchmarks/retrieval.py [--images 5000] [--captions 5] [--width 512] [--rounds 3]

Random unit vectors; captions are nearer to their own images. Some images and captions are there
several times, which is a tie. Beside ours: `ranking` each way alone, whose results have to be the
same bit for bit, and what is often written instead, the whole matrix in fp32 and the ten highest of
its rows and columns.
"""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import torch
from pictures import print_figures
from predictions import CAPTION_NOISE, unit

from fomo_dagster.evaluation.ranking import Ranking, ranking
from fomo_dagster.evaluation.ranking_both_ways import ranking_both_ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--captions", type=int, default=5)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    images = unit(random.normal(size=(options.images, options.width)))
    images[10::50] = images[0]
    owners = np.repeat(np.arange(len(images)), options.captions)
    noise = random.normal(size=(len(owners), options.width))
    captions = unit(images[owners] + CAPTION_NOISE * noise)
    captions[::333] = captions[1]
    own = np.arange(len(images))

    def highest() -> object:
        products = torch.from_numpy(images) @ torch.from_numpy(captions).T
        return products.topk(min(10, len(captions)), 1), products.topk(min(10, len(images)), 0)

    ours: dict[str, Callable[[], object]] = {
        "both ways at once": lambda: ranking_both_ways(images, captions, owners),
        "each way alone": lambda: (
            ranking(images, captions, own, owners),
            ranking(captions, images, owners, own),
        ),
    }
    check(*(ranked() for ranked in ours.values()))
    contenders = {**ours, "whole matrix, fp32": highest}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, ranked in contenders.items():
            began = time.perf_counter()
            ranked()
            seconds[name].append(time.perf_counter() - began)
    matrix = len(images) * len(captions) * 4 / 2**20
    rows = [
        (
            name, statistics.median(took), min(took), max(took),
            peak_of(ours[name]) if name in ours else matrix,
        )
        for name, took in seconds.items()
    ]  # fmt: skip
    title = f"{len(images)} images, {len(captions)} captions, {options.width} numbers"
    columns = ("way", "seconds", "from", "to", "MiB held at most")
    print_figures(title, columns, rows)


def check(found: object, expected: object) -> None:
    """Raise where one differs from the other in a bit."""
    assert isinstance(found, tuple)
    assert isinstance(expected, tuple)
    for one, other in zip(found, expected, strict=True):
        for field in fields(Ranking):
            np.testing.assert_array_equal(
                getattr(one, field.name), getattr(other, field.name), field.name
            )


def peak_of(ranked: Callable[[], object]) -> float:
    tracemalloc.start()
    try:
        ranked()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    main()
