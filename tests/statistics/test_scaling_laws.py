"""Laws are recovered from points made by them, and their intervals are those of closed forms."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.optimize import brentq, curve_fit, minimize_scalar

from fomo_dagster.errors import InputError
from fomo_dagster.statistics.compute_optimal import fit_joint, joint_uncertainty
from fomo_dagster.statistics.extrapolation import choose, uncertainty
from fomo_dagster.statistics.scaling_laws import LAWS, fit

X = 1000 * 2.0 ** np.arange(10)


def m4(x):
    """Solved for y one by one."""
    beta, c, infinite, alpha, guessing = OF_LAWS["M4"][0].values()

    def one(at):
        return brentq(
            lambda y: math.log((y - infinite) / (guessing - y) ** alpha / beta / at**c),
            infinite * (1 + 1e-9), guessing * (1 - 1e-9), xtol=1e-13,
        )  # fmt: skip

    return np.array([one(at) for at in x])


OF_LAWS = {
    "M1": ({"β": 300, "c": -0.3}, lambda x: 300 * x**-0.3),
    "M2": ({"β": 300, "c": -0.35, "ε∞": 4}, lambda x: 300 * x**-0.35 + 4),
    "M3": ({"β": 300, "c": -0.35, "γ": 2e-5}, lambda x: 300 * (1 / x + 2e-5) ** 0.35),
    "M4": ({"β": 2000, "c": -0.8, "ε∞": 5, "α": 0.7, "ε0": 95}, m4),
}


@pytest.mark.parametrize("name", OF_LAWS)
def test_a_law_is_recovered_from_its_points_and_extrapolates(name):
    parameters, law = OF_LAWS[name]
    found = fit(LAWS[name], X, law(X))
    assert found.parameters == pytest.approx(parameters, rel=1e-4)
    ahead = np.array([4 * X[-1]])
    assert found.at(ahead) == pytest.approx(law(ahead), rel=1e-5)


def test_an_offset_is_found_in_noise_and_its_interval_holds_it():
    noise = np.exp(np.random.default_rng(0).normal(0, 0.01, len(X)))
    x, y = np.tile(X, 3), np.concatenate([OF_LAWS["M2"][1](X) * noise**sign for sign in (1, -1, 0)])
    found = choose(x, y, hold_out=2, laws=[LAWS["M1"], LAWS["M2"]])
    losses = {trial.law.name: trial.loss for trial in found.trials}
    assert found.fit.law.name == "M2"
    assert losses["M2"] < 0.02 < losses["M1"]
    assert found.held_out.sum() == 2 * 3
    told = uncertainty(found.fit, x, np.array([4 * X[-1]]), draws=100)
    for name, value in OF_LAWS["M2"][0].items():
        low, high = told.parameters[name]
        assert low < value < high < 2 * value + 1, name
    ((low, high),) = told.values
    assert low < OF_LAWS["M2"][1](4 * X[-1]) < high


def test_a_power_laws_intervals_are_those_of_linear_regression():
    random = np.random.default_rng(1)
    x = X[:6]
    y = 300 * x**-0.3 * np.exp(random.normal(0, 0.05, len(x)))
    told = uncertainty(fit(LAWS["M1"], x, y), x, np.array([1e5]), draws=2000)
    line = sm.OLS(np.log(y), sm.add_constant(np.log(x))).fit()
    low, high = line.conf_int()[1]
    assert told.parameters["c"] == pytest.approx((low, high), abs=(high - low) / 15)
    new = line.get_prediction([[1.0, math.log(1e5)]]).conf_int(obs=True)[0]
    assert np.log(told.values[0]) == pytest.approx(new, abs=(new[1] - new[0]) / 15)


def test_as_many_points_as_parameters_have_no_intervals():
    x = X[:3]
    found = fit(LAWS["M2"], x, OF_LAWS["M2"][1](x))
    assert found.freedom == 0
    assert uncertainty(found, x, x) is None


def test_a_parameter_with_nothing_to_do_chooses_no_law():
    found = choose(X[:5], 300 * X[:5] ** -0.3 * (1, 1, 1, 1, 0.9))
    losses = [trial.loss for trial in found.trials if trial.loss is not None]
    assert losses == pytest.approx([-math.log(0.9)] * 3, rel=1e-3)
    assert found.before.law.name == "M1"


def test_laws_with_too_many_parameters_are_left_out():
    found = choose(X[:4], OF_LAWS["M2"][1](X[:4]))
    assert [trial.law.name for trial in found.trials if trial.loss is None] == ["M4"]
    assert found.fit.law.name == "M2"


# Log-perplexity of two translation models (Bansal et al. 2022) at 0.5, or 1, to 512 million pairs:
# two of the learning curves that were published with arXiv 2209.06640.
LEARNING_CURVES = {
    "decoder_only": [
        0.873709, 0.736229, 0.616589, 0.508520, 0.454286, 0.409749, 0.396468, 0.386573,
        0.386145, 0.380698, 0.382325,
    ],
    "encoder_and_lstm": [
        0.796000, 0.645159, 0.555180, 0.505702, 0.449880, 0.408487, 0.391095, 0.386738,
        0.374689, 0.372422,
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", LEARNING_CURVES)
@pytest.mark.parametrize(
    ("law", "formula", "starts"),
    [
        ("M2", lambda x, a, c, e: np.log(np.exp(a + c * x) + e), [(0, -0.5, 0.1), (5, -1, 0.3)]),
        ("M3", lambda x, a, c, g: a - c * np.log(np.exp(-x) + g), [(0, -0.3, 1), (0, -1, 0.1)]),
    ],
)
def test_published_learning_curves_are_fitted_as_by_scipy(name, law, formula, starts):
    y = np.array(LEARNING_CURVES[name])
    x = 512e6 / 2.0 ** np.arange(len(y))[::-1]
    log_x = np.log(x / 1e7)

    def squares(start):
        with np.errstate(invalid="ignore"):  # where it tries an offset below 0
            theta, _ = curve_fit(formula, log_x, np.log(y), start, maxfev=20000)
        return ((formula(log_x, *theta) - np.log(y)) ** 2).sum()

    ours = (np.log(fit(LAWS[law], x, y).at(x) / y) ** 2).sum()
    assert ours == pytest.approx(min(map(squares, starts)), rel=1e-5)


def test_laws_with_a_bend_foretell_published_curves_better_than_a_line():
    for values in LEARNING_CURVES.values():
        y = np.array(values)
        trials = choose(512e6 / 2.0 ** np.arange(len(y))[::-1], y).trials
        losses = {trial.law.name: trial.loss for trial in trials}
        assert max(losses["M2"], losses["M3"], losses["M4"]) < losses["M1"] / 5


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (X[:4], X[:4] ** -0.5, r"M4 .* has 5 parameters, and needs points .* not at 4"),
        ([1, 2, 4, 8, 0], [5, 4, 3, 2, 1], "the x of 1 point is 0"),
        ([1, 2, 4, 8, 16], [5, 4, 3, 0, -1], "the error of 2 points is 0"),
        ([8, 8], [5, 4], "two values of x or more, not 2 points, all at 8"),
        ([], [], "two values of x or more, not 0 points"),
        (X, X**0.5, r"the error grows, from 31.62 at 1000 to 715.5 at 512000"),
    ],
)
def test_points_without_a_law_are_refused(x, y, said):
    with pytest.raises(InputError, match=said):
        fit(LAWS["M4"], np.array(x, dtype=float), np.array(y, dtype=float))


def test_holding_out_too_much_is_refused():
    with pytest.raises(InputError, match="3 values of x, of which the largest 2 would be held out"):
        choose(X[:3], X[:3] ** -0.5, hold_out=2)
    with pytest.raises(InputError, match="3 values or more must be left, as many as M2 has"):
        choose(X[:3], X[:3] ** -0.5, laws=[LAWS["M2"]])


# Hoffmann et al. 2022 (arXiv 2203.15556), approach 3.
PUBLISHED = {"E": 1.69, "A": 406.4, "B": 410.7, "α": 0.34, "β": 0.28}


def chinchilla(size, samples):
    return 1.69 + 406.4 / size**0.34 + 410.7 / samples**0.28


def test_chinchillas_law_is_recovered_with_its_division_of_compute():
    size, samples = (
        grid.ravel() for grid in np.meshgrid(10.0 ** np.arange(8, 11), 10.0 ** np.arange(9, 13))
    )
    found = fit_joint(size, samples, chinchilla(size, samples))
    assert found.parameters == pytest.approx(PUBLISHED, rel=1e-6)
    assert found.exponents == pytest.approx({"a": 0.28 / 0.62, "b": 0.34 / 0.62})
    budget = 5.76e23  # that of Gopher
    (best,), (count,) = found.optimum(np.array([budget]))
    assert 6 * best * count == pytest.approx(budget)
    searched = minimize_scalar(
        lambda n: chinchilla(math.exp(n), budget / 6 / math.exp(n)), (20, 25)
    )
    assert math.log(best) == pytest.approx(searched.x, abs=1e-4)
    noise = np.exp(np.random.default_rng(2).normal(0, 0.002, len(size)))
    noisy = fit_joint(size, samples, chinchilla(size, samples) * noise)
    told = joint_uncertainty(noisy, size, samples, np.array([budget]), draws=20)
    for name, value in {**PUBLISHED, **found.exponents}.items():
        low, high = told.parameters[name]
        assert low < value < high, name
    (low, high), (least, most) = told.sizes[0], told.values[0]
    assert low < best < high
    assert least < chinchilla(best, count) < most < 1.05 * least


@pytest.mark.parametrize(
    ("size", "samples", "said"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], "has 5 parameters, and needs as many points or more, not 4"),
        ([1, 2, 1, 2, 1, 2], [1, 1, 2, 2, 3, 3], "3 values of model size or more, not 2"),
        ([1, 2, 3, 1, 2, 3], [1, 1, 1, 2, 2, 2], "3 values of samples or more, not 2"),
    ],
)  # fmt: skip
def test_what_tells_no_division_of_compute_is_refused(size, samples, said):
    size, samples = np.array(size, dtype=float), np.array(samples, dtype=float)
    with pytest.raises(InputError, match=said):
        fit_joint(size, samples, 1 / size + 1 / samples)
