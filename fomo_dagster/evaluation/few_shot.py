"""Few-shot classification on frozen features: linear probes, and the nearest class mean.

A linear probe is a logistic regression with an L2 penalty, whose C is chosen on further training
images as in CLIP (Radford et al. 2021, arXiv 2103.00020, appendix A.3): by accuracy, on a
logarithmic grid that is searched from coarse to fine. The nearest class mean (Mensink et al. 2013,
doi 10.1109/TPAMI.2013.83) is here the class whose normalised mean feature has the highest cosine.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from fomo_dagster.evaluation.ranking import Floats, Integers
from fomo_dagster.evaluation.results import percent
from fomo_dagster.experiment.evaluation import FewShot, Strengths
from fomo_dagster.metrics import Metric
from fomo_dagster.units import counted

LEAST_SHARE = 4  # of a class's images, one in as many at most is no shot
COARSE_DECADES = 2  # between the values of C that the search begins with
ITERATIONS = 1000  # of L-BFGS at most, as in CLIP
LINEAR_PROBE, NEAREST_CLASS_MEAN = "linear_probe_{}_shot", "nearest_class_mean_{}_shot"

METRICS = (
    Metric(
        LINEAR_PROBE.format("<k>"),
        "accuracy of a logistic regression on the features of k training images per class",
    ),
    Metric(
        NEAREST_CLASS_MEAN.format("<k>"),
        "accuracy of predicting the class whose mean feature over k training images is nearest",
    ),
)


@dataclass(frozen=True)
class Labelled:
    """features: (N, D), L2-normalised; classes: (N,), the place of each image's class."""

    features: Floats
    classes: Integers


def drawn_images(train: pl.DataFrame, few_shot: FewShot) -> pl.DataFrame:
    """The training images that are shots or that C is chosen on, with a column `shot`: an image's
    place among the shots of its class, from 0; null if C is chosen on it.

    train: rows of an index; an image that is stored under several keys is one. A class's images are
    in the order of a hash of seed and image. So more shots contain the fewer, whatever else is
    asked for, and another image in one class changes no other class.
    """
    images = train.sort("key").unique(["concept", "digest"], keep="first", maintain_order=True)
    hashes = [_priority(few_shot.seed, digest) for digest in images["digest"]]
    place = pl.col("priority").rank("ordinal").over("concept").cast(pl.Int64) - 1
    chosen_on = pl.min_horizontal(
        few_shot.choosing_images, pl.len().over("concept") // LEAST_SHARE
    ).cast(pl.Int64)
    placed = images.with_columns(pl.Series("priority", hashes, pl.UInt64)).with_columns(
        shot=place - chosen_on
    )
    taken = placed.filter(pl.col("shot") < max(few_shot.shots)).with_columns(
        shot=pl.when(pl.col("shot") >= 0).then("shot")
    )
    return taken.sort("key").drop("priority")


def remarks_of(
    dataset: str, train_samples: Mapping[str, int], concepts: Sequence[str], few_shot: FewShot
) -> str | None:
    """What there is to say of a dataset before it is measured; None if nothing.

    train_samples: concept → number of training samples; concepts: all of them.
    """
    sizes = {name: train_samples.get(name, 0) for name in concepts}
    if not any(sizes.values()):
        return (
            f"dataset {dataset!r} has no training split, and is left out of few_shot: give it one "
            "to have it measured"
        )
    chosen_on = {n: min(few_shot.choosing_images, size // LEAST_SHARE) for n, size in sizes.items()}
    said = []
    short = [n for n, size in sizes.items() if size - chosen_on[n] < max(few_shot.shots)]
    if short:
        least = min(short, key=sizes.__getitem__)
        said.append(
            f"{counted(len(short), 'concept')} with fewer than {max(few_shot.shots)} images to "
            f"give as shots, such as {least!r} with {sizes[least] - chosen_on[least]}: each gives "
            "those that it has"
        )
    if not any(chosen_on.values()):
        said.append(
            f"fewer than {LEAST_SHARE} training images of each concept, so that there is none to "
            "choose C on: its linear probes are left out"
        )
    return f"few_shot: dataset {dataset!r} has {'; and '.join(said)}" if said else None


def few_shot_results(
    shots: Labelled, places: Integers, choosing: Labelled, test: Labelled, few_shot: FewShot
) -> tuple[dict[str, tuple[float, int]], pl.DataFrame]:
    """Metric → accuracy in percent and number of test images; and of each linear probe the C that
    was chosen and its accuracy on the images that it was chosen on.

    shots: N images; places: (N,), each one's place among those of its class. Where there is no
    image to choose C on, there are no linear probes. A class without shots is never predicted.
    """
    values: dict[str, tuple[float, int]] = {}
    chosen = []
    for count in few_shot.shots:
        there = places < count
        few = Labelled(shots.features[there], shots.classes[there])
        if len(choosing.classes):
            strength, accuracy = _chosen_strength(few, choosing, few_shot.regularisation)
            chosen.append((count, strength, accuracy))
            predicted = _probe(few, strength)(test.features)
            values[LINEAR_PROBE.format(count)] = _accuracy(predicted, test)
        predicted = nearest_class_mean(few, test.features)
        values[NEAREST_CLASS_MEAN.format(count)] = _accuracy(predicted, test)
    schema = {"shots": pl.Int64(), "C": pl.Float64(), "accuracy_where_chosen": pl.Float64()}
    return values, pl.DataFrame(chosen, schema=schema, orient="row")


def nearest_class_mean(few: Labelled, features: Floats) -> Integers:
    """The class of each of M features (M, D): (M,). Of equally near ones, the first."""
    classes, places = np.unique(few.classes, return_inverse=True)
    sums = np.zeros((len(classes), few.features.shape[1]))
    np.add.at(sums, places, few.features)
    means = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)  # (C, D)
    predicted: Integers = classes[(features @ means.T).argmax(axis=1)]
    return predicted


def grid_of(strengths: Strengths) -> npt.NDArray[np.float64]:
    """The values of C, ascending."""
    decades = math.log10(strengths.highest) - math.log10(strengths.lowest)
    count = 1 + math.ceil(round(decades * strengths.per_decade, 6))
    return np.geomspace(strengths.lowest, strengths.highest, count)


def best_place(count: int, step: int, value: Callable[[int], float]) -> int:
    """The place of the highest value that a search from coarse to fine finds among `count`: at
    first every `step`-th and the last, then both neighbours of the best at half the step, down to
    1. Of equal values, the first place."""
    values: dict[int, float] = {p: value(p) for p in {*range(0, count, step), count - 1}}

    def rank(place: int) -> tuple[float, int]:
        return values[place], -place

    while step > 1:
        step = -(-step // 2)
        best = max(values, key=rank)
        for place in (best - step, best + step):
            if 0 <= place < count and place not in values:
                values[place] = value(place)
    found: int = max(values, key=rank)
    return found


def _chosen_strength(
    few: Labelled, choosing: Labelled, strengths: Strengths
) -> tuple[float, float]:
    """C, and the accuracy in percent on the images that it is chosen on."""
    grid = grid_of(strengths)

    def accuracy(place: int) -> float:
        return _accuracy(_probe(few, float(grid[place]))(choosing.features), choosing)[0]

    place = best_place(len(grid), COARSE_DECADES * strengths.per_decade, accuracy)
    return float(grid[place]), accuracy(place)


def _probe(few: Labelled, strength: float) -> Callable[[Floats], Integers]:
    """From features to classes, by a logistic regression with C = strength."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    classes = np.unique(few.classes)
    if len(classes) == 1:  # which scikit-learn refuses
        return lambda features: np.full(len(features), classes[0])
    probe = LogisticRegression(C=strength, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        # With little regularisation, few images are told apart long before the weights stand still.
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(few.features.astype(np.float64), few.classes)
    return lambda features: probe.predict(features.astype(np.float64))


def _accuracy(predicted: Integers, labelled: Labelled) -> tuple[float, int]:
    return percent(predicted == labelled.classes), len(predicted)


def _priority(seed: int, digest: str) -> int:
    """Uniform on [0, 2⁶⁴)."""
    hashed = hashlib.blake2b(f"few_shot:{seed}:{digest}".encode(), digest_size=8)
    return int.from_bytes(hashed.digest(), "little")
