"""Performance profiles by their definition, run by run."""

import numpy as np
import pytest

from fomo_dagster.statistics.profiles import profile_band, score_profile

TAUS = np.array([0.0, 30, 50, 55, 90])


def test_a_profile_is_the_share_of_runs_and_datasets_above_each_value():
    # That of rliable's `run_score_deviation`: all runs of all tasks, more than τ and not as much.
    scores = np.array([[50.0, 91, 20], [55, 89, 40]])
    expected = [sum(score > tau for score in scores.ravel()) / 6 for tau in TAUS]
    assert score_profile(scores, TAUS).tolist() == pytest.approx(expected)
    assert expected == pytest.approx([1, 5 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_a_band_draws_the_runs_of_each_dataset_by_themselves():
    random = np.random.default_rng(0)
    scores = random.normal(50, 10, (5, 40))
    low, high = profile_band(scores, np.array([50.0]), draws=4000)
    # A share of each dataset's runs is drawn: binomials of 5, whose variances add up.
    shares = (scores > 50).mean(axis=0)
    deviation = np.sqrt((shares * (1 - shares) / 5).sum()) / 40
    assert (high - low)[0] == pytest.approx(2 * 1.96 * deviation, rel=0.1)
    assert low[0] < shares.mean() < high[0]


def test_one_run_has_no_band_and_runs_that_agree_have_none_to_see():
    assert profile_band(np.array([[10.0, 60]]), TAUS) is None
    low, high = profile_band(np.array([[10.0, 60]] * 3), TAUS, draws=50)
    assert low.tolist() == high.tolist() == [1, 0.5, 0.5, 0.5, 0]
