"""What weights do in merges: means of models stay between them, sums add up, uniform is nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from fomo_dagster.merging.sparsifying import uniform
from fomo_dagster.merging.task_vectors import TaskVectorTechnique
from fomo_dagster.merging.technique import Technique
from fomo_dagster.merging.techniques import TECHNIQUES, AnyTechnique, merge
from fomo_dagster.merging.weighting import Weighting, as_joint

Array = NDArray[np.float64]
WEIGHTS = [(1.0, 4.0, 9.0, 16.0, 25.0), (0.2, 0.0, 0.5, 0.1, 0.2), (3.0, -1.0, 0.0, 2.0, -0.5)]
IMAGE, TEXT = "visual.transformer.resblocks.1.w", "transformer.resblocks.0.w"

# What is dropped by lot is rescaled, beyond every model by design: here nothing is dropped.
UNDROPPED = {"dare": {"drop": 0.0}, "della": {"drop": 0.0, "spread": 0.0}}
MEANS: list[dict[str, object]] = [
    {"technique": "interpolation"},
    {"technique": "weighted_mean"},
    {"technique": "ties", "density": 0.2},
    {"technique": "ties", "density": 0.6, "over": "tensor", "combine": "max"},
    {"technique": "dare_ties", **UNDROPPED["dare"]},
    {"technique": "della_ties", **UNDROPPED["della"], "combine": "max"},
    {"technique": "breadcrumbs_ties", "smallest": 0.3, "largest": 0.1},
    {"technique": "magmax"},
    {"technique": "random", "seed": 7},
    {"technique": "sce", "density": 0.5},
    {"technique": "model_stock"},
]
SUMS: list[dict[str, object]] = [
    {"technique": "task_arithmetic"},
    {"technique": "ties", "density": 1.0, "combine": "sum"},
    {"technique": "dare", **UNDROPPED["dare"]},
    {"technique": "dare_ties", **UNDROPPED["dare"], "combine": "sum"},
    {"technique": "della", **UNDROPPED["della"]},
    {"technique": "breadcrumbs", "smallest": 0.0, "largest": 0.0},
    {"technique": "consensus", "threshold": 0.0},
]
OVER_VECTORS = [
    one
    for one in [*MEANS, *SUMS]
    if issubclass(TECHNIQUES[str(one["technique"])], TaskVectorTechnique)
]


def named(parameters: dict[str, object]) -> str:
    return "-".join(map(str, parameters.values()))


def declared(parameters: dict[str, object], **further: object) -> Technique:
    technique: Technique = TypeAdapter(AnyTechnique).validate_python(parameters | further)
    return technique


def merged(folder, technique: Technique, base: Array, models: Array) -> Array:
    """Of (n,) and (K, n): (n,), a third of each in the text tower."""

    def written(name: str, numbers: Array):
        text, image = np.split(numbers.astype(np.float32), [len(numbers) // 3])
        save_file({TEXT: torch.tensor(text), IMAGE: torch.tensor(image)}, folder / name)
        return folder / name

    paths = [written(f"model{k}", numbers) for k, numbers in enumerate(models)]
    merge(technique, paths, folder / "out", written("base", base))
    found = load_file(folder / "out")
    return np.concatenate([found[TEXT].numpy(), found[IMAGE].numpy()]).astype(np.float64)


def some_models(count: int, size: int = 300) -> tuple[Array, Array]:
    random = np.random.default_rng(count)
    base = random.normal(size=size)
    models = base + random.normal(size=(count, size)) * random.uniform(0.1, 2, (count, 1))
    return base.astype(np.float32).astype(np.float64), models.astype(np.float32).astype(np.float64)


def test_means_that_were_sums_have_addresses_of_their_own():
    for parameters, expected in [(one, True) for one in MEANS] + [(one, False) for one in SUMS]:
        technique = declared(parameters)
        if isinstance(technique, TaskVectorTechnique):
            counts_ratios = technique.weighted_version > 1 and parameters.get("combine") != "sum"
            assert counts_ratios is expected, parameters


# The formulas once more, a parameter at a time: (K,) task vectors and weights → a number.


def elected(taus: Array, weights: Array) -> list[int]:
    sign = np.sign(sum(w * t for w, t in zip(weights, taus, strict=True)))
    return [k for k in range(len(taus)) if weights[k] * taus[k] * sign > 0]


def mean_of_elected(taus: Array, weights: Array) -> float:
    agreeing = elected(taus, weights)
    total = sum(weights[k] for k in agreeing)
    return sum(weights[k] * taus[k] for k in agreeing) / total if agreeing else 0.0


def largest_of(taus: Array, weights: Array, among: list[int] | None = None) -> float:
    best, chosen = 0.0, 0.0
    for k in range(len(taus)) if among is None else among:
        if weights[k] * abs(taus[k]) >= best and weights[k] > 0:
            best, chosen = weights[k] * abs(taus[k]), taus[k]
    return chosen


def by_parameter(formula: Callable[[Array, Array], float]) -> Callable[[Array, Array], Array]:
    return lambda taus, weights: np.array([formula(column, weights) for column in taus.T])


def sce_of_all(taus: Array, weights: Array) -> Array:
    third = taus.shape[1] // 3
    parts = []
    for part in (taus[:, :third], taus[:, third:]):  # tensor by tensor
        squares = np.array([sum(t * t for t in tau) for tau in part])
        column = []
        for values in part.T:
            agreeing = elected(values, weights)
            total = sum(weights[k] * squares[k] for k in agreeing)
            added = sum(weights[k] * squares[k] * values[k] for k in agreeing)
            column.append(added / total if agreeing else 0.0)
        parts.append(np.array(column))
    return np.concatenate(parts)


def chosen_by_lot(taus: Array, weights: Array) -> Array:
    """Of each parameter the first model until which the shares add up to more than its lot."""
    third = taus.shape[1] // 3
    sizes = {TEXT: third, IMAGE: taus.shape[1] - third}
    draws = np.concatenate([uniform(f"7/{name}", 0, size) for name, size in sizes.items()])
    until = np.cumsum(weights) / np.sum(weights)
    place = [next(k for k in range(len(until)) if lot < until[k]) for lot in draws]
    return taus[place, np.arange(taus.shape[1])]


FORMULAS: dict[str, tuple[dict[str, object], Callable[[Array, Array], Array]]] = {
    "ties": ({"technique": "ties", "density": 1.0}, by_parameter(mean_of_elected)),
    "ties, largest": (
        {"technique": "ties", "density": 1.0, "combine": "max"},
        by_parameter(lambda taus, weights: largest_of(taus, weights, elected(taus, weights))),
    ),
    "dare": ({"technique": "dare_ties", "drop": 0.0}, by_parameter(mean_of_elected)),
    "della": (
        {"technique": "della_ties", **UNDROPPED["della"]},
        by_parameter(mean_of_elected),
    ),
    "breadcrumbs": (
        {"technique": "breadcrumbs_ties", "smallest": 0.0, "largest": 0.0},
        by_parameter(mean_of_elected),
    ),
    "magmax": ({"technique": "magmax"}, by_parameter(largest_of)),
    "sce": ({"technique": "sce", "density": 1.0}, sce_of_all),
    "random": ({"technique": "random", "seed": 7}, chosen_by_lot),
    "sum": (
        {"technique": "task_arithmetic"},
        lambda taus, weights: (weights[:, None] * taus).sum(axis=0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("case", FORMULAS)
def test_weights_act_as_the_formula_says(tmp_path, case, weights):
    """A negative weight turns the model's changes round, and counts as much as it is large."""
    parameters, formula = FORMULAS[case]
    base, models = some_models(len(weights))
    signs, sizes = np.sign(weights), np.abs(weights)
    expected = base + formula(signs[:, None] * (models - base), sizes)
    found = merged(tmp_path, declared(parameters, coefficients=weights), base, models)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hull")


FLOATS = st.floats(-64, 64, width=32, allow_subnormal=False)


@settings(max_examples=60)
@given(
    parameters=st.sampled_from(MEANS),
    numbers=st.integers(1, 6).flatmap(
        lambda count: st.lists(
            st.lists(FLOATS, min_size=6, max_size=6), min_size=count + 1, max_size=count + 1
        )
    ),
    weighting=st.sampled_from(get_args(Weighting)),
    reversed=st.booleans(),
    scales=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    beta=st.floats(0, 0.5),
)
def test_a_mean_by_shares_lies_between_theta_0_and_the_models(
    folder, parameters, numbers, weighting, reversed, scales, beta
):
    """Also where it is scaled by tower and by depth, as long as no factor is above 1."""
    base, models = np.array(numbers[0]), np.array(numbers[1:])
    technique = declared(parameters)
    of_weights = not isinstance(technique, TaskVectorTechnique)
    if not of_weights:
        lines = {"alpha": 0.5, "beta": beta}
        scaled = {"scale": scales[0], "group_scales": {"image": scales[1]}, "lines": lines}
        technique = declared(parameters, **scaled)
    if parameters["technique"] != "model_stock":  # which weighs all alike
        technique = as_joint(technique, len(models), weighting, reversed=reversed)
    elif len(models) == 1:
        return
    found = merged(folder, technique, base, models)
    inputs = models if of_weights and not technique.needs_base else np.vstack([base, models])
    rounding = 2.0**-50 * np.abs([base, *models]).max(axis=0)
    assert (found >= inputs.min(axis=0) - rounding).all()
    assert (found <= inputs.max(axis=0) + rounding).all()


def test_five_models_weighed_by_squares_leave_no_parameter_of_ties_beyond_all(tmp_path):
    base, models = some_models(5, 3000)
    technique = as_joint(declared({"technique": "ties", "density": 0.2}), 5, "quadratic")
    found = merged(tmp_path, technique, base, models)
    inputs = np.vstack([base, models])
    beyond = (found > inputs.max(axis=0) + 1e-6) | (found < inputs.min(axis=0) - 1e-6)
    assert beyond.mean() == 0  # 27% where it was divided by the number of models


@pytest.mark.parametrize("dropping", ["dare_ties", "della_ties"])
def test_what_is_rescaled_goes_no_further_than_rescaling_takes_it(tmp_path, dropping):
    base, models = some_models(4)
    technique = as_joint(declared({"technique": dropping, "drop": 0.5}), 4, "cubic")
    most = 0.5 + (0.1 if dropping == "della_ties" else 0)
    reach = (models - base) / (1 - most)
    found = merged(tmp_path, technique, base, models) - base
    assert (found <= np.maximum(reach.max(axis=0), 0) + 1e-5).all()
    assert (found >= np.minimum(reach.min(axis=0), 0) - 1e-5).all()
    assert (np.abs(found) > np.abs(models - base).max(axis=0) + 1e-5).any()


@pytest.mark.parametrize("parameters", OVER_VECTORS, ids=named)
def test_equal_weights_are_none_bit_for_bit(tmp_path, parameters):
    technique = declared(parameters)
    assert isinstance(technique, TaskVectorTechnique)
    base, models = some_models(5)
    alike = (0.25 if parameters in MEANS else 1.0,) * 5
    plain = merged(tmp_path, technique, base, models)
    assert np.array_equal(merged(tmp_path, as_joint(technique, 5), base, models), plain)
    weighed = merged(tmp_path, declared(parameters, coefficients=alike), base, models)
    assert np.array_equal(weighed, plain)


@pytest.mark.parametrize("parameters", [one for one in OVER_VECTORS if one in MEANS], ids=named)
def test_a_model_that_weighs_nothing_is_none_and_none_at_all_are_theta_0(tmp_path, parameters):
    base, models = some_models(4)
    without = merged(tmp_path, declared(parameters, coefficients=(1, 2, 3)), base, models[:3])
    beside = merged(tmp_path, declared(parameters, coefficients=(1, 2, 3, 0)), base, models)
    np.testing.assert_allclose(beside, without, rtol=1e-6, atol=1e-6)
    none = merged(tmp_path, declared(parameters, coefficients=(0, 0, 0, 0)), base, models)
    assert np.array_equal(none, base)


@pytest.mark.parametrize("technique", ["ties", "sce"])
def test_a_model_of_double_weight_counts_as_two(tmp_path, technique):
    base, models = some_models(3)
    parameters: dict[str, object] = {"technique": technique, "density": 0.4}
    weighed = merged(tmp_path, declared(parameters, coefficients=(1, 2, 1)), base, models)
    doubled = merged(tmp_path, declared(parameters), base, models[[0, 1, 1, 2]])
    np.testing.assert_allclose(weighed, doubled, rtol=1e-6, atol=1e-6)


def test_lots_fall_on_models_as_often_as_they_weigh(tmp_path):
    base, models = np.zeros(30_000), np.array([1.0, 2.0, 3.0])[:, None] * np.ones(30_000)
    technique = declared({"technique": "random"}, coefficients=(1, 0, 3))
    found = merged(tmp_path, technique, base, models)
    assert {*found} == {1.0, 3.0}
    assert (found == 3.0).mean() == pytest.approx(0.75, abs=0.01)
