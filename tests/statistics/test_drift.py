"""Drift: against other implementations, and at its level."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel

from fomo_dagster.statistics.drift import drift, mmd_test, told_apart


def normal(count, mean=0.0, seed=0, dimensions=8):
    return np.random.default_rng(seed).normal(mean, 1, (count, dimensions))


def test_the_estimate_is_the_sum_over_pairs():
    newer, earlier = normal(12, 0.5, seed=1), normal(9, seed=2)
    everything = np.concatenate([newer, earlier])
    squares = ((everything[:, None] - everything[None]) ** 2).sum(axis=2)
    gamma = 1 / np.median(squares[np.triu_indices(21, 1)])
    within, others = rbf_kernel(newer, gamma=gamma), rbf_kernel(earlier, gamma=gamma)
    expected = (
        (within.sum() - 12) / (12 * 11)
        + (others.sum() - 9) / (9 * 8)
        - 2 * rbf_kernel(newer, earlier, gamma=gamma).mean()
    )
    assert mmd_test(newer, earlier, 99)[0] == pytest.approx(expected, abs=1e-12)


def test_equal_distributions_are_rejected_at_the_level_and_others_always():
    null = [mmd_test(normal(20, seed=s), normal(30, seed=1000 + s), 99, s)[1] for s in range(400)]
    assert 0.02 < np.mean(np.array(null) <= 0.05) < 0.085
    assert np.mean(null) == pytest.approx(0.5, abs=0.06)
    moved = [
        mmd_test(normal(40, 1.0, seed=s), normal(40, seed=99 + s), 199, s)[1] for s in range(9)
    ]
    assert max(moved) == 1 / 200


def test_what_is_all_alike_does_not_drift():
    same = np.ones((10, 3))
    assert mmd_test(same, same, 99) == (0.0, 1.0)


def test_the_classifier_finds_the_samples_that_are_new():
    earlier = normal(200, seed=3)
    newer = np.concatenate([normal(70, seed=4), normal(30, 4.0, seed=5)])
    found = drift(newer, earlier, 199)
    assert found.p < 0.01
    assert set(np.argsort(-found.novelty)[:30]) == set(range(70, 100))
    area, _ = told_apart(normal(300, seed=6), normal(300, seed=7))
    assert area == pytest.approx(0.5, abs=0.08)
    area, novelty = told_apart(normal(50, 3.0, seed=8), normal(400, seed=9))
    assert area > 0.99
    assert novelty.min() > 0.5  # as if both were as frequent
