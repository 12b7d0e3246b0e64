"""Calibration against scikit-learn, and against sums that can be done by hand."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from fomo_dagster.evaluation.calibration import (
    adaptive_calibration_error,
    expected_calibration_error,
    reliability,
    signed_gaps,
)
from fomo_dagster.evaluation.classification import Classified
from fomo_dagster.evaluation.ranking import ranking


def test_bins_hold_what_is_above_their_lower_edge():
    confidences = np.array([0.2, 0.2, 0.2, 0.2, 0.9, 1.0, 0.0])
    correct = np.array([1, 0, 0, 0, 1, 1, 0], dtype=bool)
    # With five bins, 0.2 is in the first, with 0.0.
    expected = (abs(0.8 - 1) + abs(1.9 - 2)) / 7
    assert expected_calibration_error(confidences, correct, 5) == pytest.approx(expected)


@pytest.mark.parametrize(("strategy", "bins"), [("uniform", 15), ("quantile", 10)])
def test_errors_are_those_of_scikit_learns_curve(strategy, bins):
    random = np.random.default_rng(0)
    confidences = random.random(1000)
    correct = random.random(1000) < confidences**2
    accuracy, confidence = calibration_curve(correct, confidences, n_bins=bins, strategy=strategy)
    if strategy == "uniform":
        counts = np.bincount(np.ceil(confidences * bins).astype(int) - 1, minlength=bins)
        found = expected_calibration_error(confidences, correct, bins)
    else:
        counts = np.full(bins, 100)
        found = adaptive_calibration_error(confidences, correct, bins)
    expected = (np.abs(accuracy - confidence) * counts).sum() / 1000
    assert found == pytest.approx(expected, abs=2e-3 if strategy == "quantile" else 1e-9)


def test_an_error_is_the_mean_of_signed_gaps_and_as_uncertain():
    random = np.random.default_rng(2)

    def drawn(count):
        confidences = random.random(count)
        return confidences, random.random(count) < confidences**2

    confidences, correct = drawn(1000)
    gaps = signed_gaps(confidences, correct)
    assert gaps.mean() == pytest.approx(expected_calibration_error(confidences, correct))
    errors = [expected_calibration_error(*drawn(1000)) for _ in range(400)]
    assert np.std(errors) == pytest.approx(gaps.std() / 1000**0.5, rel=0.15)


def test_scores_of_probabilities_are_scikit_learns():
    random = np.random.default_rng(1)
    images = random.normal(size=(200, 8)).astype(np.float32)
    classes = random.normal(size=(5, 8)).astype(np.float32)
    targets = random.integers(0, 5, 200)
    found = Classified(ranking(images, classes, targets, np.arange(5), 0.5), targets, 5, 0.5)
    logits = 0.5 * images.astype(float) @ classes.T.astype(float)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found.negative_log_likelihood()[0] == pytest.approx(log_loss(targets, shares), abs=1e-6)
    brier = brier_score_loss(targets, shares, labels=range(5), scale_by_half=False)
    assert found.brier_score()[0] == pytest.approx(100 * brier, abs=1e-4)
    assert found.chance() == (20.0, 200)


def test_the_order_of_samples_changes_no_digit():
    random = np.random.default_rng(2)
    confidences = random.choice([0.1, 0.3, 0.7, 0.95], 500) + random.choice([0, 1e-3], 500)
    correct = random.random(500) < 0.6
    order = random.permutation(500)
    for error in (expected_calibration_error, adaptive_calibration_error):
        assert error(confidences, correct) == error(confidences[order], correct[order])


def test_a_reliability_diagram_is_scikit_learns_curve_without_what_is_no_number():
    random = np.random.default_rng(2)
    confidences = random.random(500)
    correct = random.random(500) < confidences
    accuracy, confidence = calibration_curve(correct, confidences, n_bins=15)
    found = reliability(np.append(confidences, np.nan), np.append(correct, True))
    assert found["accuracy"].to_list() == pytest.approx(accuracy)
    assert found["confidence"].to_list() == pytest.approx(confidence)
    gaps = (found["accuracy"] - found["confidence"]).abs()
    error = float((gaps * found["images"]).sum()) / found["images"].sum()
    assert error == pytest.approx(expected_calibration_error(confidences, correct))
