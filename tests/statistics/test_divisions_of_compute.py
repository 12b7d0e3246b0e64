"""Compute is divided as the published law divides it, which neither approach is told."""

import numpy as np
import pytest

from fomo_dagster.errors import InputError
from fomo_dagster.statistics.divisions_of_compute import envelope, exponent_ranges, isoflop

# Hoffmann et al. 2022 (arXiv 2203.15556), approach 3.
E, A, B, ALPHA, BETA = 1.69, 406.4, 410.7, 0.34, 0.28
EXPONENTS = {"a": BETA / (ALPHA + BETA), "b": ALPHA / (ALPHA + BETA)}
GOPHER = np.array([5.76e23])


def loss(size, samples):
    return E + A / size**ALPHA + B / samples**BETA


def best_size(flops):
    return (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (flops / 6) ** EXPONENTS["a"]


def with_errors(size, samples):
    return size, samples, 6 * size * samples, loss(size, samples)


def curves():
    grid = np.meshgrid(np.geomspace(1e8, 3e10, 12), np.geomspace(1e9, 1e13, 25))
    return with_errors(*(axis.ravel() for axis in grid))


def equal_budgets():
    """Nine sizes at each of five budgets, more of them too small than too large."""
    flops = np.repeat(10.0 ** np.arange(19, 24), 9)
    size = best_size(flops) * np.tile(2.0 ** np.linspace(-2, 1.5, 9), 5)
    return with_errors(size, flops / 6 / size)


@pytest.mark.parametrize(("approach", "points"), [(envelope, curves), (isoflop, equal_budgets)])
def test_compute_is_divided_as_the_law_of_its_points_divides_it(approach, points):
    found = approach(*points())
    assert found.exponents == pytest.approx(EXPONENTS, abs=0.01)
    (size,), (samples,) = found.optimum(GOPHER)
    assert size == pytest.approx(best_size(GOPHER)[0], rel=0.1)
    assert 6 * size * samples == pytest.approx(GOPHER[0], rel=0.02)
    ranges = exponent_ranges(approach, points(), draws=40)
    for name, value in EXPONENTS.items():
        low, high = ranges[name]
        assert low - 0.01 < value < high + 0.01
        assert high - low < 0.03


def test_budgets_do_not_run_into_each_other():
    """Five budgets, each within a hundredth, and within a twentieth of the next."""
    budgets = 1e20 * 1.055 ** np.arange(5)
    flops = np.repeat(budgets, 4) * np.tile([1, 1.003, 1.006, 1.009], 5)
    size = best_size(np.repeat(budgets, 4)) * np.tile([0.5, 0.9, 1.2, 2.0], 5)
    found = isoflop(*with_errors(size, flops / 6 / size))
    assert found.budgets == pytest.approx(budgets * 1.0045, rel=1e-3)
    chained = np.array([1, 1.04, 1.08, 1.12, 1.17, 1.21])
    with pytest.raises(InputError, match="of 0 budgets with as many sizes"):
        isoflop(np.arange(1.0, 7), chained, chained, np.full(6, 2.0))


def test_replicates_of_a_point_count_as_their_mean():
    points = curves()
    noise = np.exp(np.random.default_rng(0).normal(0, 1e-9, len(points[0])))
    twice = [np.concatenate([column, column]) for column in points]
    twice[3] = np.concatenate([points[3] * noise, points[3] / noise])
    assert envelope(*twice).exponents == pytest.approx(envelope(*points).exponents)


def test_points_that_divide_no_compute_are_refused():
    size, samples = np.array([1.0, 1, 2, 2]), np.array([1.0, 2, 1, 2])
    with pytest.raises(InputError, match=r"3 model sizes or more .* numbers of samples, not 2"):
        envelope(*with_errors(size, samples))
    size, samples = (axis.ravel() for axis in np.meshgrid([1e8, 1e9, 1e10], [1e9, 1e10, 1e11]))
    flops = 6 * size * samples
    with pytest.raises(InputError, match="of 3 model sizes, 2 ever have the least error"):
        envelope(size, samples, flops, 1 / samples)
    with pytest.raises(InputError, match="of 1 budget with as many sizes, 0 do"):
        isoflop(size, samples, flops, size**-0.01)
    with pytest.raises(InputError, match="the samples of 1 point is 0"):
        isoflop(np.ones(2), np.array([0.0, 1]), np.ones(2), np.ones(2))


def test_too_few_points_have_no_intervals():
    size = np.tile([1.0, 2, 4], 2)
    flops = np.repeat([100.0, 1000], 3)
    errors = np.array([2.0, 1, 2, 2.1, 1.1, 2])
    points = size, flops / size, flops, errors
    assert isoflop(*points).exponents["a"] == pytest.approx(0, abs=0.1)
    assert exponent_ranges(isoflop, points, draws=20) is None
