"""Tests against statsmodels, closed forms and definitions."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as table_mcnemar
from statsmodels.stats.weightstats import ttost_paired

from fomo_dagster.statistics.answers import Answers
from fomo_dagster.statistics.comparison import compare, over_datasets
from fomo_dagster.statistics.intervals import Interval, interval
from fomo_dagster.statistics.significance import (
    holm,
    mcnemar,
    pairwise,
    probability_of_improvement,
    replicates_needed,
    verdict,
)


@pytest.mark.parametrize("seed", range(4))
def test_mcnemars_p_is_that_of_statsmodels(seed):
    random = np.random.default_rng(seed)
    one, other = random.random(60) < 0.7, random.random(60) < 0.5
    table = [
        [int((one & other).sum()), int((one & ~other).sum())],
        [int((~one & other).sum()), int((~one & ~other).sum())],
    ]
    assert mcnemar(one, other) == pytest.approx(table_mcnemar(table, exact=True).pvalue)
    assert mcnemar(one, one) == 1


def test_pairs_are_counted_and_corrected_together():
    scores = {
        "a": np.array([50.0, 60, 70, 80, 90, 55, 65, 75]),
        "b": np.array([40.0, 50, 60, 70, 80, 45, 55, 65.5]),
        "c": np.array([50.0, 61, 69, 80, 91, 54, 65, 75]),
    }
    pairs = {(pair.first, pair.second): pair for pair in pairwise(scores)}
    assert pairs["a", "b"].wins == 8
    assert pairs["a", "b"].difference == pytest.approx(np.mean(scores["a"] - scores["b"]))
    assert pairs["a", "b"].p == pytest.approx(3 * 2 / 2**8)  # exact, times three pairs
    assert (pairs["a", "c"].wins, pairs["a", "c"].losses, pairs["a", "c"].p) == (2, 2, 1.0)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_what_rounding_leaves_of_equal_scores_is_no_difference():
    def mean(*right):
        return np.array([np.mean([100 * (count / 55) for count in right])])

    one, other = mean(18, 25, 51), mean(18, 51, 25)
    assert one != other
    (pair,) = pairwise({"a": one, "b": other})
    assert (pair.wins, pair.losses, pair.difference, pair.p) == (0, 0, 0, 1)
    assert probability_of_improvement(one[None], other[None]) == 0.5


def test_equal_differences_are_ties_of_the_signed_ranks():
    base = np.array([30.0, 41.1, 52.7, 63.3, 74.9, 85.2, 20.6])
    (pair,) = pairwise({"a": base + np.array([0.1] * 6 + [-0.1]), "b": base})
    # Seven equal ranks, so the sum of the positive ones depends on the signs' number alone.
    assert pair.p == pytest.approx(2 * (1 + 7) / 2**7)


@pytest.mark.parametrize("seed", range(5))
def test_holms_correction_is_that_of_its_definition(seed):
    values = np.random.default_rng(seed).random(12) ** 4
    values[3] = values[7]
    below = [sorted(values[values <= p]) for p in values]  # each of these times how many are left
    expected = [min(1, max((12 - place) * p for place, p in enumerate(own))) for own in below]
    assert holm(values.tolist()) == pytest.approx(expected)


def test_a_run_is_better_with_the_probability_of_its_pairs():
    one, other = np.array([[1.0, 5], [3, 5]]), np.array([[2.0, 5], [0, 5]])
    assert probability_of_improvement(one, other) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert probability_of_improvement(one, one) == pytest.approx(0.5)


def test_a_run_is_better_as_often_as_rliable_says():
    # By rliable 1.2.0: metrics.probability_of_improvement(one, other). It needs arch < 8, which the
    # present pandas breaks, so its numbers stand here; they take no bootstrap.
    one = np.array([[61.0, 40, 55, 70], [64, 42, 55, 71], [58, 40, 55, 90]])
    other = np.array(
        [[60.0, 42, 55, 72], [61, 39, 55, 70], [66, 40, 55, 60], [57, 41, 55, 80],
         [63, 40, 55, 71.5]]
    )  # fmt: skip
    assert probability_of_improvement(one, other[:3]) == pytest.approx(0.5555555555555556)
    assert probability_of_improvement(one, other) == pytest.approx(0.5333333333333333)
    assert probability_of_improvement(other, one) == pytest.approx(0.4666666666666667)


def difference(estimate, error, replicates=5):
    return Interval(
        estimate, estimate - 2.78 * error, estimate + 2.78 * error, replicates,
        error * replicates**0.5, error, 0.0, replicates - 1, 0.5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("estimate", "error", "margin", "said"),
    [
        (2.0, 0.5, None, "better"),
        (-2.0, 0.5, None, "worse"),
        (0.3, 0.5, None, "too little to tell"),
        (0.1, 0.1, 1.0, "equivalent"),
        (0.5, 0.6, 1.0, "no worse"),
        (0.5, 0.9, 1.0, "too little to tell"),
        (-3.0, 0.5, 1.0, "worse"),
    ],
)
def test_an_interval_says_what_it_can(estimate, error, margin, said):
    assert verdict(difference(estimate, error), margin) == said


def test_equivalence_and_non_inferiority_are_those_of_statsmodels():
    """Of replicates whose samples add nothing, the paired tests of statsmodels and of SciPy."""
    random, said = np.random.default_rng(0), []
    for replicates in [3, 4, 6] * 40:
        rates = 0.5 + random.normal(0, 0.05, (2, replicates, 1))
        one, other = (
            Answers(random.random((replicates, 400)) < rate, np.zeros(400, bool), np.arange(400))
            for rate in rates
        )
        found = interval(lambda scores: scores["a"], {"a": one}, {"a": other}, draws=2)
        if found.error_of_samples:
            continue
        scores = one.scores(), other.scores()
        assert found.p == pytest.approx(stats.ttest_rel(*scores).pvalue)
        for margin in (1.0, 3.0, 10.0):
            p, (_, not_below, _), _ = ttost_paired(*scores, -margin, margin)
            expected = "equivalent" if p < 0.05 else "no worse" if not_below < 0.05 else ""
            told = verdict(found, margin)
            if told != "better" and (expected or told != "worse"):
                assert told == (expected or "too little to tell")
                said.append(told)
    assert {said.count(one) > 4 for one in ("equivalent", "no worse", "too little to tell")} == {
        True
    }


def test_as_many_replicates_are_needed_as_a_power_analysis_says():
    # An effect of one standard deviation takes 10 pairs (Cohen 1988, and any table of power).
    assert replicates_needed(difference(1.0, 1 / 5**0.5)) == 10
    assert replicates_needed(difference(0.0, 1.0)) is None
    assert replicates_needed(difference(1e-6, 1.0)) is None


def test_a_method_is_compared_dataset_by_dataset_and_over_all():
    random = np.random.default_rng(0)

    def method(rates):
        return {
            name: Answers(random.random((4, 300)) < rate, np.zeros(300, bool), np.arange(300))
            for name, rate in rates.items()
        }

    methods = {
        "base": method({"birds": 0.4, "cats": 0.5, "old": 0.6}),
        "good": method({"birds": 0.6, "cats": 0.7, "old": 0.6}),
    }
    roles = {"birds": "adaptation", "cats": "adaptation", "old": "held_out"}
    (found,) = compare(methods, roles, "base", draws=200)
    assert (found.method, found.baseline) == ("good", "base")
    assert (found.replicates, found.queries) == (4, 900)
    metrics = {metric.name: metric for metric in found.metrics}
    assert verdict(metrics["knowledge_accumulation"].difference, None) == "better"
    assert metrics["knowledge_accumulation"].difference.estimate == pytest.approx(20, abs=5)
    assert verdict(metrics["zero_shot_retention"].difference, None) != "better"
    gm = metrics["geometric_mean"]
    assert gm.value == pytest.approx(np.sqrt(65 * 60), abs=3)
    assert [one.name for one in found.datasets if one.corrected < 0.05] == ["birds", "cats"]
    assert found.improvement > 0.7
    assert len(over_datasets(methods)) == 1
