"""Times, profiles and scores by hand."""

import numpy as np
import pytest

from fomo_dagster.statistics.time_to_target import (
    Reached,
    benchmark_scores,
    performance_profiles,
    ratios,
    reached,
)


@pytest.mark.parametrize(
    ("values", "best", "found"),
    [
        ([10, 60, 59, 61, 70], "high", Reached(1, 3)),
        ([60, 70], "high", Reached(0, 0)),
        ([10, 60, 59], "high", Reached(1, None)),
        ([10, None, 59], "high", Reached(None, None)),
        ([61, None, 60], "high", Reached(0, 2)),
        ([90, 60, 50], "low", Reached(1, 1)),
        ([], "high", Reached(None, None)),
    ],
)
def test_a_target_is_held_from_where_nothing_falls_below_it(values, best, found):
    assert reached(values, 60, best) == found


NEVER = np.inf
TIMES = np.array(
    [
        [10.0, 40.0, 5.0, NEVER],  # the fastest on one, and three times the fastest on another
        [20.0, 13.0, NEVER, NEVER],
        [10.0, 13.0, 25.0, NEVER],
    ]
)


def test_profiles_are_shares_of_workloads():
    assert ratios(TIMES)[:, :3].tolist() == [[1, 40 / 13, 1], [2, 1, NEVER], [1, 1, 5]]
    found = performance_profiles(TIMES, np.array([1, 2, 3.5, 4]))
    assert found.tolist() == [[0.5, 0.5, 0.75, 0.75], [0.25, 0.5, 0.5, 0.5], [0.5] * 4]


def test_profiles_are_those_of_rliable_where_no_ratio_is_a_tau():
    # By rliable 1.2.0: library.run_score_deviation(-ratios, -tau) of each method, which is what its
    # create_performance_profile takes; it asks for more than tau, and this for no more.
    times = np.array(
        [[10, 40, 5, 9, NEVER], [20, 13, NEVER, 3, NEVER], [12, 13, 25, 4.5, NEVER],
         [10, 39.5, 8, 10, NEVER]]
    )  # fmt: skip
    found = performance_profiles(times, np.array([1.05, 1.4, 1.7, 2.2, 3.2, 4.0, 6.0]))
    assert found.tolist() == [
        [0.4, 0.4, 0.4, 0.4, 0.8, 0.8, 0.8],
        [0.4, 0.4, 0.4, 0.6, 0.6, 0.6, 0.6],
        [0.2, 0.4, 0.6, 0.6, 0.6, 0.6, 0.8],
        [0.2, 0.2, 0.4, 0.4, 0.6, 0.8, 0.8],
    ]


def test_a_score_is_the_area_under_the_profile():
    # (4 - ratio) / 3 of each workload, nothing where the ratio is above 4 or there is none
    expected = [(1 + (4 - 40 / 13) / 3 + 1) / 4, (2 / 3 + 1) / 4, 2 / 4]
    assert benchmark_scores(TIMES).tolist() == pytest.approx(expected)
    taus = np.linspace(1, 4, 30_001)
    area = np.trapezoid(performance_profiles(TIMES, taus), taus) / 3
    assert area.tolist() == pytest.approx(expected, abs=1e-4)


def test_what_takes_no_time_is_the_fastest_of_all():
    assert ratios(np.array([[0.0], [3.0], [0.0], [NEVER]])).ravel().tolist() == [1, NEVER, 1, NEVER]
