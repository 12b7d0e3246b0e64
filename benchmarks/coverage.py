"""How often intervals contain the truth, and equally good methods are told apart.

    python benchmarks/coverage.py [--draws 2000] [--replicates 1,2,3,5,10]

Two methods on four datasets, the last of which asks 3 captions an image, answer by a probit: an
image is easy or hard for both methods, and more so for one than for the other (`own`), a replicate
good or bad on all datasets and on each (`spread`, as well). Both methods are equally good.

For KA, ZS, GM and recall on the last dataset: in how many of `--draws` such sets the 95 % interval
of the one method contains what it would score with any number of images and replicates, and in how
many p of the difference of both is below 0.05.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections import Counter
from operator import itemgetter

import numpy as np
from scipy import special

from fomo_dagster.statistics.answers import Answers
from fomo_dagster.statistics.comparison import metrics_of
from fomo_dagster.statistics.intervals import Metric, intervals

ROLES = {"seen": "adaptation", "also_seen": "adaptation", "old": "held_out", "pairs": "held_out"}
RETRIEVAL, CAPTIONS = "pairs", 3
MEAN, EASE = 0.5, 0.8  # of an image's normal score, and its deviation
METRICS: dict[str, Metric] = {
    **{metric.label: value for metric, value in metrics_of(ROLES).items()},
    "R@5": itemgetter(RETRIEVAL),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--replicates", default="1,2,3,5,10")
    options = parser.parse_args()
    print("replicates  images  spread   own | " + " | ".join(f"{name:>11}" for name in METRICS))
    numbers = map(int, options.replicates.split(","))
    for replicates, images, (spread, own) in itertools.product(
        numbers, (150, 1000), ((0.05, 0.3), (0.12, 0.3), (0.12, 0.0))
    ):
        covered, rejected = rates(options.draws, replicates, images, spread, own)
        cells = [f"{covered[name]:5.1f} {rejected[name]:5.1f}" for name in METRICS]
        settings = f"{replicates:10d} {images:7d} {spread:7.2f} {own:5.1f}"
        print(f"{settings} | {' | '.join(cells)}", flush=True)


def rates(
    draws: int, replicates: int, images: int, spread: float, own: float
) -> tuple[dict[str, float], dict[str, float]]:
    """In percent of draws, for each of METRICS: intervals of a method that contain the truth, and
    differences of equal ones whose p is below 0.05."""
    seeds = [replicates, images, round(1000 * spread), round(1000 * own)]
    random = np.random.default_rng(seeds)
    # Without replicates that vary, an interval is of these, and not of any others.
    between = spread if replicates > 1 else 0.0
    deviation = math.sqrt(1 + EASE**2 + own**2 + 2 * between**2)
    truth = 100 * float(special.ndtr(MEAN / deviation))
    covered, rejected = Counter[str](), Counter[str]()
    for _ in range(draws):
        one, other = simulated(random, replicates, images, between, own)
        of_one = intervals(list(METRICS.values()), one, draws=2)
        of_both = intervals(list(METRICS.values()), one, other, draws=2)
        for name, alone, difference in zip(METRICS, of_one, of_both, strict=True):
            low, high = alone.bounds(0.95)
            covered[name] += low <= truth <= high
            rejected[name] += difference.p < 0.05
    return (
        {name: 100 * covered[name] / draws for name in METRICS},
        {name: 100 * rejected[name] / draws for name in METRICS},
    )


def simulated(
    random: np.random.Generator, replicates: int, images: int, spread: float, own: float
) -> tuple[dict[str, Answers], dict[str, Answers]]:
    """What two equally good methods answer on the datasets of ROLES."""
    methods: tuple[dict[str, Answers], dict[str, Answers]] = ({}, {})
    everywhere = random.normal(0, spread, (2, replicates, 1))
    for name in ROLES:
        ease = MEAN + random.normal(0, EASE, images)
        clusters, of_captions = np.arange(images), np.zeros(images, bool)
        if name == RETRIEVAL:
            clusters = np.concatenate([clusters, np.repeat(clusters, CAPTIONS)])
            of_captions = np.arange(len(clusters)) >= images
        for method, shift in zip(methods, everywhere, strict=True):
            of_method = (ease + random.normal(0, own, images))[clusters]
            shift = shift + random.normal(0, spread, (replicates, 1))
            right = of_method + shift + random.normal(size=(replicates, len(clusters))) > 0
            method[name] = Answers(right, of_captions, clusters)
    return methods


if __name__ == "__main__":
    main()
