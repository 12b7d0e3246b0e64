"""Intervals cover what they should, and their parts are those of closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fomo_dagster.statistics.answers import Answers
from fomo_dagster.statistics.intervals import interval, intervals


def mean_of(scores):
    return np.mean(list(scores.values()), axis=0)


def answers(correct, of_captions=None, clusters=None):
    correct = np.asarray(correct, dtype=bool)
    queries = correct.shape[1]
    return Answers(
        correct,
        np.zeros(queries, bool) if of_captions is None else np.asarray(of_captions, bool),
        np.arange(queries) if clusters is None else np.asarray(clusters),
    )


def test_one_replicate_has_the_error_of_a_share():
    correct = np.random.default_rng(0).random((1, 400)) < 0.7
    found = interval(mean_of, {"birds": answers(correct)}, draws=4000)
    share = correct.mean()
    assert found.estimate == pytest.approx(100 * share)
    assert found.error == pytest.approx(100 * math.sqrt(share * (1 - share) / 399))
    assert found.high - found.low == pytest.approx(2 * 1.966 * found.error, rel=0.08)
    assert (found.replicates, found.deviation) == (1, None)


def test_the_error_of_a_difference_has_that_of_its_replicates():
    rates = np.array([0.5, 0.52, 0.61, 0.58])
    correct = np.arange(1000)[None] / 1000 < rates[:, None]  # the same samples in each replicate
    nothing = np.zeros((4, 1000), bool)
    found = interval(mean_of, {"a": answers(correct)}, {"a": answers(nothing)})
    assert found.estimate == pytest.approx(100 * rates.mean())
    assert found.deviation == pytest.approx(100 * rates.std(ddof=1))
    of_replicates = 100 * rates.std(ddof=1) / 2
    assert found.error > of_replicates  # since the samples vary as well
    assert found.freedom >= 3
    assert found.p < 1e-3


def test_retrieval_draws_images_with_their_captions():
    # Two images: the first with three captions. Recall is the mean of both directions.
    one = answers([[1, 0, 1, 1, 0, 1]], [0, 0, 1, 1, 1, 1], [0, 1, 0, 0, 0, 1])
    assert one.count == 2
    assert one.scores().tolist() == pytest.approx([100 * (1 / 2 + 3 / 4) / 2])
    drawn = one.scores(np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))
    expected = [100 * (1 + 2 / 3) / 2, 100 * (0 + 1) / 2, 62.5]
    assert drawn[:, 0].tolist() == pytest.approx(expected)
    assert one.influence.mean() == pytest.approx(0)


def simulated(random, replicates, samples, spread=0.03):
    """Two methods that are equally good on a dataset with classes and on one with 2 captions an
    image: images are easy or hard for both, replicates good or bad. Their scores are 60 %."""
    methods = ({}, {})
    shifts = [random.normal(0, spread, (replicates, 1)) for _ in methods]
    for name, captions in (("seen", 0), ("held_out", 2)):
        clusters = np.concatenate([np.arange(samples), np.repeat(np.arange(samples), captions)])
        rates = random.beta(3, 2, samples)[clusters]
        for method, shift in zip(methods, shifts, strict=True):
            correct = random.random((replicates, len(rates))) < np.clip(rates + shift, 0, 1)
            method[name] = answers(correct, np.arange(len(rates)) >= samples, clusters)
    return methods


@pytest.mark.slow
@pytest.mark.parametrize("replicates", [3, 5])
def test_intervals_cover_95_percent_and_equal_methods_are_told_apart_in_5(replicates):
    random = np.random.default_rng(replicates)
    covered = rejected = 0
    for number in range(1000):
        first, second = simulated(random, replicates, 150)
        found = interval(mean_of, first, second, seed=number, draws=200)
        covered += found.low <= 0 <= found.high
        rejected += found.p < 0.05
    assert abs(covered / 10 - 95) <= 2
    assert abs(rejected / 10 - 5) <= 2


METRICS = [
    lambda scores: scores["seen"],
    lambda scores: scores["held_out"],
    lambda scores: np.sqrt(scores["seen"] * scores["held_out"]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("replicates", "least"), [(1, 93.5), (2, 91), (3, 94), (5, 94)])
def test_few_replicates_cover_nearly_as_often(replicates, least):
    """All of METRICS together, since each alone would take more draws; `benchmarks/coverage.py` has
    them."""
    random, covered, kept = np.random.default_rng(replicates), 0, 0
    for _ in range(400):
        methods = simulated(random, replicates, 150, 0.03 if replicates > 1 else 0.0)
        for alone in intervals(METRICS, methods[0], draws=2):
            low, high = alone.bounds(0.95)
            covered += low <= 60 <= high
        kept += sum(found.p >= 0.05 for found in intervals(METRICS, *methods, draws=2))
    assert least <= covered / 12 <= 97
    assert least <= kept / 12 <= 97


def test_degrees_of_freedom_weigh_by_the_parts_of_the_variance():
    random = np.random.default_rng(2)
    rates = np.clip(random.beta(3, 2, 60) + random.normal(0, 0.05, (3, 1)), 0, 1)
    correct = 100.0 * (random.random((3, 60)) < rates)
    by_replicate, by_sample = correct.mean(axis=1), correct.mean(axis=0)
    rest = correct - by_replicate[:, None] - by_sample + correct.mean()
    of_rest = (rest**2).sum() / (2 * 59) / (3 * 60)
    of_replicates = by_replicate.var(ddof=1) / 3
    of_samples = by_sample.var(ddof=1) / 60 - of_rest
    found = interval(mean_of, {"a": answers(correct > 0)}, draws=2)
    assert of_replicates > 0.1 < of_samples
    assert found.error**2 == pytest.approx(of_replicates + of_samples)
    share = of_replicates / found.error**2
    assert 1 / found.freedom == pytest.approx(share / 2 + (1 - share) / 59)


def test_what_a_metric_does_not_follow_changes_nothing_of_it():
    random = np.random.default_rng(5)
    small, large = answers(random.random((1, 12)) < 0.5), answers(random.random((1, 900)) < 0.5)

    def of_small(scores):
        return scores["small"]

    alone = interval(of_small, {"small": small})
    beside = interval(of_small, {"large": large, "small": small})
    assert beside == alone
    assert beside.freedom == pytest.approx(11)


def test_few_samples_that_all_say_the_same_prove_nothing():
    for count in (1, 3):
        for replicates in (1, 2):
            right, wrong = (np.full((replicates, count), value) for value in (True, False))
            found = interval(mean_of, {"a": answers(right)}, {"a": answers(wrong)})
            assert found.estimate == 100
            assert found.p > 0.05
    same = interval(mean_of, {"a": answers(np.ones((1, 50)))}, {"a": answers(np.ones((1, 50)))})
    assert (same.estimate, same.p) == (0, 1)
    assert -10 < same.low < 0 < same.high < 10


def test_replicates_that_agree_by_chance_leave_an_interval():
    # Both methods are right on two of four samples in each replicate, but on others.
    one = answers([[1, 1, 0, 0], [0, 0, 1, 1]])
    other = answers([[0, 1, 1, 0], [1, 0, 0, 1]])
    found = interval(mean_of, {"a": one}, {"a": other})
    assert (found.estimate, found.p) == (0, 1)
    assert found.low < -20 < 20 < found.high
