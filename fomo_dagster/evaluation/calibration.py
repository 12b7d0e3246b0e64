"""How far the probabilities of a classifier are from how often it is right."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import polars as pl

BINS = 15

Floats = npt.NDArray[np.float64]
Truths = npt.NDArray[np.bool_]


def expected_calibration_error(confidences: Floats, correct: Truths, bins: int = BINS) -> float:
    """Mean distance of confidence and accuracy over bins of equal width, weighted by their sizes,
    from 0 to 1 (Guo et al. 2017, arXiv 1706.04599). confidences, correct: (N,), of predictions."""
    return _error(_of_equal_width(confidences, bins), confidences, correct, bins)


def adaptive_calibration_error(confidences: Floats, correct: Truths, bins: int = BINS) -> float:
    """As `expected_calibration_error`, over bins of as equal numbers as can be (Nixon et al. 2019,
    arXiv 1904.01685, of the predicted class alone). Of equal confidences, wrong ones come first, so
    that the order of the samples changes nothing."""
    order = np.lexsort((correct, confidences))
    places = np.empty(len(confidences), dtype=np.int64)
    places[order] = np.arange(len(confidences)) * bins // len(confidences)
    return _error(places, confidences, correct, bins)


def signed_gaps(confidences: Floats, correct: Truths, bins: int = BINS) -> Floats:
    """(N,): how far each confidence is above the truth, with the sign of the sum of its bin. Their
    mean is the `expected_calibration_error`."""
    gaps = confidences - correct
    places = _of_equal_width(confidences, bins)
    signs = np.where(np.bincount(places, gaps, minlength=bins) < 0, -1.0, 1.0)
    return np.asarray(signs[places] * gaps)


def reliability(confidences: Floats, correct: Truths, bins: int = BINS) -> pl.DataFrame:
    """What a reliability diagram shows: `confidence` and `accuracy`, from 0 to 1, and the number of
    `images`, of each bin of equal width that has any. Confidences that are no numbers are left
    out."""
    there = np.isfinite(confidences)
    confidences, correct = confidences[there], correct[there]
    places = _of_equal_width(confidences, bins)
    return (
        pl.DataFrame({"bin": places, "confidence": confidences, "correct": correct})
        .group_by("bin")
        .agg(pl.mean("confidence"), pl.mean("correct").alias("accuracy"), images=pl.len())
        .sort("bin")
        .select("confidence", "accuracy", pl.col("images").cast(pl.Int64))
    )


def _of_equal_width(confidences: Floats, bins: int) -> npt.NDArray[np.int64]:
    # A bin holds what is above its lower edge, up to its upper one.
    return np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)


def _error(places: npt.NDArray[np.int64], confidences: Floats, correct: Truths, bins: int) -> float:
    gaps = (confidences - correct)[np.argsort(places, kind="stable")]
    ends = np.cumsum(np.bincount(places, minlength=bins))[:-1]
    # Rounded exactly, so that the order of the samples changes no digit.
    return math.fsum(abs(math.fsum(part)) for part in np.split(gaps, ends)) / len(confidences)
