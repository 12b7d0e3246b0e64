"""How much each of the models of a joint merge counts."""

import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.merging.linear import Interpolation
from fomo_dagster.merging.task_vectors import TaskArithmetic
from fomo_dagster.merging.technique import Repair
from fomo_dagster.merging.techniques import TECHNIQUES
from fomo_dagster.merging.weighting import Weighting, as_joint, shares

FOUR = {
    "uniform": [1, 1, 1, 1],
    "linear": [1, 2, 3, 4],
    "sqrt": [1, 2**0.5, 3**0.5, 2],
    "quadratic": [1, 4, 9, 16],
    "cubic": [1, 8, 27, 64],
    "fifth": [1, 32, 243, 1024],
    "tenth": [1, 1024, 59049, 1048576],
    "exponential": [2, 4, 8, 16],
    "logarithmic": [math.log(2), math.log(3), math.log(4), math.log(5)],
}


@pytest.mark.parametrize("weighting", get_args(Weighting))
def test_shares_follow_their_curve(weighting):
    weights = FOUR[weighting]
    expected = [weight / sum(weights) for weight in weights]
    assert shares(weighting, 4) == pytest.approx(expected, rel=1e-12)
    assert shares(weighting, 4, reversed=True) == pytest.approx(expected[::-1], rel=1e-12)
    assert shares(weighting, 1) == (1.0,)


@given(st.sampled_from(get_args(Weighting)), st.integers(1, 2000))
def test_shares_add_up_and_never_fall(weighting, models):
    found = shares(weighting, models)
    assert math.fsum(found) == pytest.approx(1, abs=1e-12)
    assert list(found) == sorted(found)


def test_a_mean_has_the_shares_and_task_vectors_are_weighed_by_one_on_average():
    mean = as_joint(TECHNIQUES["weighted_mean"](), 3, "linear")
    assert mean.coefficients == pytest.approx((1 / 6, 2 / 6, 3 / 6))
    sphere = as_joint(TECHNIQUES["multislerp"](), 3, "linear")
    assert sphere.coefficients == pytest.approx((1 / 6, 2 / 6, 3 / 6))
    ties = as_joint(TECHNIQUES["ties"](density=0.4), 3, "linear", reversed=True)
    assert ties.coefficients == pytest.approx((1.5, 1.0, 0.5))
    assert ties.density == 0.4


@pytest.mark.parametrize("name", sorted(TECHNIQUES.keys() - {"slerp", "nuslerp", "nearswap"}))
def test_uniform_is_what_the_technique_does_anyway(name):
    technique = TECHNIQUES[name]()
    expected = TECHNIQUES["weighted_mean"]() if name == "interpolation" else technique
    assert as_joint(technique, 5) == expected


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("interpolation", {"weight": 0.3}, "weight 0.3.*joint.weighting"),
        ("interpolation", {"group_weights": {"image": 0.5}}, "group_weights.*joint.weighting"),
        ("slerp", {}, "slerp cannot merge all trained weights at once.*karcher takes any number"),
        ("weighted_mean", {"coefficients": (0.5, 0.5)}, "coefficients of weighted_mean are for"),
        ("weighted_mean", {"group_coefficients": {"image": (1.0, 0.0)}}, "group_coefficients of"),
        ("magmax", {"coefficients": (1.0, 2.0, 3.0)}, "coefficients of magmax.*joint.weighting"),
    ],
)
def test_what_is_of_a_fixed_number_of_models_is_refused(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        as_joint(TECHNIQUES[name](**parameters), 3)


@pytest.mark.parametrize("name", ["karcher", "model_stock"])
def test_a_technique_that_weighs_all_alike_is_not_weighed(name):
    with pytest.raises(ValueError, match=f"{name} weighs all models equally, not sqrt"):
        as_joint(TECHNIQUES[name](), 3, "sqrt")


def test_an_interpolation_of_all_keeps_its_repair():
    repair = Repair(samples=8)
    assert as_joint(Interpolation(repair=repair), 3).repair == repair
    assert as_joint(TaskArithmetic(repair=repair), 3, "linear").repair == repair
